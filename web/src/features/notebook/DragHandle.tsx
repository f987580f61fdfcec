import { GripVertical } from "lucide-react";
import { useMay } from "@/features/account/me";
import { cellType } from "./drag";
import { useStrings } from "./strings";

/** By this an entry is dragged to another place. Keyboards have Ctrl+Shift+Up and Down. */
export function DragHandle({ id }: { id: string }) {
  const s = useStrings();
  if (!useMay("write")) return null;
  return (
    <span
      draggable
      title={s.drag}
      aria-hidden
      className="absolute top-1.5 -left-[1.35rem] hidden h-7 w-5 cursor-grab items-center justify-center rounded text-muted opacity-0 transition-opacity hover:bg-hover hover:text-ink active:cursor-grabbing group-hover/cell:opacity-100 sm:flex"
      onDragStart={(event) => {
        event.dataTransfer.setData(cellType, id);
        event.dataTransfer.effectAllowed = "move";
        const card = event.currentTarget.closest("[data-entry]");
        if (card) event.dataTransfer.setDragImage(card, 12, 12);
      }}
    >
      <GripVertical className="size-4" />
    </span>
  );
}
