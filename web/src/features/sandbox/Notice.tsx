import { Moon, X } from "lucide-react";
import { useEffect, useRef } from "react";
import type { Item } from "@/api/types";
import { useMay } from "@/features/account/me";
import { useNotebook, useNotebookState } from "@/features/notebook/controller";
import { useActions } from "@/features/session";
import { cx } from "@/lib/cx";
import { Button, IconButton } from "@/ui";
import { useStrings } from "./strings";

/** The session's own word in the thread: the sandbox woke without its variables, and what to do. */
export function Notice({ item }: { item: Item }) {
  const s = useStrings();
  const actions = useActions();
  const notebook = useNotebook();
  const { id } = item;
  const selected = useNotebookState((state) => state.selected === id);
  const runs = useMay("execute");
  const root = useRef<HTMLElement>(null);
  useEffect(() => {
    const focus = () => {
      const element = root.current?.closest<HTMLElement>("[data-entry]");
      element?.focus({ preventScroll: true });
      element?.scrollIntoView({ block: "nearest" });
    };
    return notebook.register(id, { edit: focus, finish: () => {}, focus });
  }, [notebook, id]);
  // Reasons we know are said in the person's language; the server speaks English.
  const why = (s.woke as Record<string, string>)[item.reason ?? ""];
  return (
    <section
      ref={root}
      aria-label={s.sandbox}
      className={cx(
        "flex items-start gap-3 rounded-xl border bg-warning-soft px-3 py-2.5 text-sm",
        selected ? "border-accent/60" : "border-warning/30",
      )}
    >
      <Moon aria-hidden className="mt-0.5 size-4 shrink-0 text-warning" />
      <div className="min-w-0 flex-1">
        <p>{why ? s.wokeEmpty(why) : item.text}</p>
        {runs && (
          <Button size="sm" className="mt-2" onClick={() => void actions.runAll()}>
            {s.runAll}
          </Button>
        )}
      </div>
      {runs && (
        <IconButton size="sm" label={s.dismiss} onClick={() => void notebook.remove(id)}>
          <X aria-hidden />
        </IconButton>
      )}
    </section>
  );
}
