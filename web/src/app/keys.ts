import { useEffect } from "react";
import { mayChange } from "@/features/account/me";
import { isTyping } from "@/lib/hooks";
import { openDialog, togglePanel, toggleSidebar, useLayout } from "./layout";

const mac = /Mac|iPhone|iPad/.test(navigator.platform);

/** The keys that work everywhere on the page. */
export function useGlobalKeys(onNew: () => void): void {
  useEffect(() => {
    const onKey = (e: KeyboardEvent) => {
      if (e.defaultPrevented || e.altKey) return;
      const mod = mac ? e.metaKey && !e.ctrlKey : e.ctrlKey && !e.metaKey;
      const key = e.key.toLowerCase();
      const { dialog } = useLayout.getState();
      if (mod && !e.shiftKey && key === "k") openDialog(dialog === "palette" ? "none" : "palette");
      else if (dialog !== "none") return;
      else if (mod && !e.shiftKey && key === "b" && !isTyping(e.target)) toggleSidebar();
      else if (mod && !e.shiftKey && key === "j") togglePanel();
      else if (mod && e.shiftKey && key === "o") void (mayChange() && onNew());
      else if (!mod && !e.ctrlKey && !e.metaKey && e.key === "?" && !isTyping(e.target)) openDialog("shortcuts");
      else return;
      e.preventDefault();
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, [onNew]);
}
