import { useRef } from "react";

/**
 * For dialogs that no trigger of theirs opens: what had the focus gets it back.
 * To be given to the content. An entry of a menu is gone by then; its menu's
 * button stands for it. returnTo names a better place, if there is one.
 */
export function useReturnFocus(returnTo?: () => HTMLElement | null) {
  const before = useRef<HTMLElement | null>(null);
  return {
    onOpenAutoFocus: () => {
      const active = document.activeElement;
      if (!(active instanceof HTMLElement) || active === document.body) return;
      const menu = active.closest("[role=menu]")?.getAttribute("aria-labelledby");
      before.current = (menu && document.getElementById(menu)) || active;
    },
    onCloseAutoFocus: (event: Event) => {
      event.preventDefault(); // the browser's choice would be the page's beginning
      const target = returnTo?.() ?? before.current;
      before.current = null;
      if (target?.isConnected) target.focus({ preventScroll: true });
      else document.getElementById("main")?.focus({ preventScroll: true });
    },
  };
}
