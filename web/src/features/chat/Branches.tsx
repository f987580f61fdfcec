import { ChevronLeft, ChevronRight } from "lucide-react";
import type { Item } from "@/api/types";
import { useMay } from "@/features/account/me";
import { useActions } from "@/features/session";
import { IconButton } from "@/ui";
import { useStrings } from "./strings";

/** ‹ 2/3 ›: goes from one version of a message or an answer to another. */
export function Branches({ item }: { item: Item }) {
  const s = useStrings();
  const actions = useActions();
  const changes = useMay("write");
  const siblings = item.siblings ?? [];
  const at = siblings.indexOf(item.id);
  if (siblings.length < 2 || at < 0) return null;
  const go = (to: number) => {
    const id = siblings[to];
    if (id) void actions.select(id);
  };
  return (
    <fieldset className="inline-flex items-center text-muted text-xs tabular-nums">
      <legend className="sr-only">{s.message.alternative(at + 1, siblings.length)}</legend>
      <IconButton
        size="sm"
        tip={false}
        label={s.message.previous}
        disabled={at === 0 || !changes}
        onClick={() => go(at - 1)}
      >
        <ChevronLeft aria-hidden />
      </IconButton>
      <span aria-hidden>
        {at + 1}/{siblings.length}
      </span>
      <IconButton
        size="sm"
        tip={false}
        label={s.message.next}
        disabled={at === siblings.length - 1 || !changes}
        onClick={() => go(at + 1)}
      >
        <ChevronRight aria-hidden />
      </IconButton>
    </fieldset>
  );
}
