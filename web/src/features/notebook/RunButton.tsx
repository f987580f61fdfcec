import { Play, Square } from "lucide-react";
import type { Item } from "@/api/types";
import { useMay } from "@/features/account/me";
import { useActions } from "@/features/session";
import { cx } from "@/lib/cx";
import { Spinner, Tooltip } from "@/ui";
import { active } from "./status";
import { useStrings } from "./strings";

/** Runs a cell, or stops it while it runs. */
export function RunButton({ item }: { item: Item }) {
  const s = useStrings();
  const actions = useActions();
  const may = useMay("execute");
  const runs = active(item.status);
  // It is named so that whoever hears it knows why it does nothing.
  const label = may ? (runs ? s.stop : s.run) : s.readOnly;
  return (
    <Tooltip text={label} keys={may ? (runs ? "i i" : "Shift+Enter") : undefined} side="right">
      <button
        type="button"
        aria-label={label}
        disabled={item.status === "writing"}
        aria-disabled={!may || undefined}
        className={cx(
          "relative inline-flex size-7 items-center justify-center rounded-full transition-colors",
          "disabled:cursor-not-allowed disabled:opacity-30",
          !may
            ? "cursor-not-allowed text-muted opacity-60"
            : runs
              ? "text-accent hover:bg-danger-soft hover:text-danger"
              : "text-muted hover:bg-accent hover:text-on-accent",
        )}
        onClick={() => may && void (runs ? actions.interrupt() : actions.run([item.id]))}
      >
        {item.status === "running" ? <Spinner className="absolute size-7 opacity-70" /> : null}
        {runs ? (
          <Square className="size-2.5 fill-current" aria-hidden />
        ) : (
          <Play className="ml-0.5 size-3.5 fill-current" aria-hidden />
        )}
      </button>
    </Tooltip>
  );
}
