import { type RefObject, useEffect, useState } from "react";
import { cellType } from "@/features/notebook/drag";
import { useActions, useSessionStore } from "@/features/session";

/** Where a dragged entry would go, and its going there. */
export function DropLine({ scroller }: { scroller: RefObject<HTMLElement | null> }) {
  const store = useSessionStore();
  const actions = useActions();
  const [top, setTop] = useState<number | null>(null);
  useEffect(() => {
    const element = scroller.current;
    if (!element) return;
    let after: string | null = null; // "" is the very beginning
    const end = () => {
      after = null;
      setTop(null);
    };
    const over = (event: DragEvent) => {
      if (!event.dataTransfer?.types.includes(cellType)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "move";
      const entries = [...element.querySelectorAll<HTMLElement>("[data-entry]")];
      after = "";
      let y = entries[0]?.offsetTop ?? 0;
      for (const entry of entries) {
        const box = entry.getBoundingClientRect();
        if (event.clientY < box.top + box.height / 2) break;
        after = entry.dataset.entry ?? "";
        y = box.bottom - element.getBoundingClientRect().top + element.scrollTop;
      }
      setTop(
        after === ""
          ? Math.max(
              0,
              (entries[0]?.getBoundingClientRect().top ?? 0) - element.getBoundingClientRect().top + element.scrollTop,
            )
          : y,
      );
    };
    const drop = (event: DragEvent) => {
      const id = event.dataTransfer?.getData(cellType);
      if (!id) return;
      event.preventDefault();
      event.stopPropagation();
      const { order } = store.get();
      if (after !== null && after !== id && (order[order.indexOf(id) - 1] ?? "") !== after)
        void actions.move(id, after);
      end();
    };
    const leave = (event: DragEvent) => {
      if (!(event.relatedTarget instanceof Node) || !element.contains(event.relatedTarget)) end();
    };
    element.addEventListener("dragover", over);
    element.addEventListener("drop", drop);
    element.addEventListener("dragleave", leave);
    window.addEventListener("dragend", end);
    return () => {
      element.removeEventListener("dragover", over);
      element.removeEventListener("drop", drop);
      element.removeEventListener("dragleave", leave);
      window.removeEventListener("dragend", end);
    };
  }, [scroller, store, actions]);
  return top === null ? null : (
    <div
      className="pointer-events-none absolute inset-x-0 z-10 mx-auto h-0.5 max-w-192 rounded bg-accent"
      style={{ top }}
    />
  );
}
