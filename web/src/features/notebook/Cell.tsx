import { useCallback, useEffect, useMemo, useRef } from "react";
import type { Item } from "@/api/types";
import { useMay } from "@/features/account/me";
import { Outputs } from "@/features/output/Outputs";
import { useActions, useItem, useSession } from "@/features/session";
import { cx } from "@/lib/cx";
import { useSettled } from "@/lib/hooks";
import { CellActions } from "./CellActions";
import { CellFooter } from "./CellFooter";
import { useNotebook, useNotebookState } from "./controller";
import { DragHandle } from "./DragHandle";
import { CodeEditor } from "./editor/CodeEditor";
import type { EditorContext, EditorHandle } from "./editor/types";
import { StaticCode } from "./highlight/StaticCode";
import { InputPrompt } from "./InputPrompt";
import { RunButton } from "./RunButton";
import { active, troubleOf } from "./status";
import { useStrings } from "./strings";

/** A cell: code that a person or the model wrote, how its run goes, and what came out. */
export function Cell({ id }: { id: string }) {
  const item = useItem(id);
  return item ? <CellCard item={item} /> : null;
}

function CellCard({ item }: { item: Item }) {
  const s = useStrings();
  const actions = useActions();
  const notebook = useNotebook();
  const sessionId = useSession((state) => state.id);
  const selected = useNotebookState((state) => state.selected === item.id);
  const lines = useNotebookState((state) => state.lines.has(item.id));
  const editor = useRef<EditorHandle>(null);
  const { id, status } = item;
  const code = item.code ?? "";
  const writing = status === "writing";
  const changes = useMay("write");

  const context = useMemo<EditorContext>(
    () => ({
      onChange: (text) => {
        void actions.ensureSandbox();
        actions.edit(id, { code: text });
      },
      onKey: (event) => notebook.press(event, true),
      onEdge: (direction) => notebook.edge(id, direction),
      onFocus: () => notebook.focused(id, "edit"),
      complete: async (text, cursor) => (await actions.complete(text, cursor)) ?? null,
      inspect: async (text, cursor) => (await actions.inspect(text, cursor)) ?? null,
    }),
    [actions, notebook, id],
  );

  const root = useRef<HTMLDivElement>(null);
  const hidden = item.code_hidden === true;
  const edit = useCallback(
    (at?: "start" | "end") => {
      if (hidden) actions.edit(id, { code_hidden: false });
      if (hidden) setTimeout(() => editor.current?.focus(at));
      else editor.current?.focus(at);
    },
    [actions, id, hidden],
  );
  useEffect(
    () =>
      notebook.register(id, {
        edit,
        focus: () => {
          editor.current?.blur();
          const element = root.current?.closest<HTMLElement>("[data-entry]");
          element?.focus({ preventScroll: true });
          element?.scrollIntoView({ block: "nearest" });
        },
      }),
    [notebook, id, edit],
  );

  const trouble = troubleOf(item, s);
  const outputs = item.outputs ?? [];
  return (
    <div
      ref={root}
      data-cell={id}
      data-status={status}
      className={cx(
        "group/cell relative rounded-xl border bg-raised transition-colors",
        writing ? "border-gold/60" : selected ? "border-accent/60 shadow-card" : "border-line",
      )}
    >
      <DragHandle id={id} />
      <div className="flex">
        <div className="flex w-10 shrink-0 justify-center pt-1 sm:w-11">
          <RunButton item={item} />
        </div>
        <div className="min-w-0 flex-1">
          {hidden ? (
            <button
              type="button"
              className="flex h-9 w-full items-center text-left text-muted text-xs hover:text-ink"
              disabled={!changes}
              onClick={() => actions.edit(id, { code_hidden: false })}
            >
              {s.hiddenCode(code.split("\n").length)}
            </button>
          ) : writing || !changes ? (
            <StaticCode code={code} caret={writing} lineNumbers={lines} />
          ) : (
            <CodeEditor ref={editor} id={id} value={code} context={context} lineNumbers={lines} hint={s.empty} />
          )}
        </div>
        <CellActions item={item} />
      </div>
      <CellFooter item={item} />
      {trouble ? (
        <p
          className={cx(
            "mx-3 mb-2 rounded-md px-3 py-2 text-sm",
            trouble.grave ? "bg-danger-soft text-danger" : "bg-warning-soft text-warning",
          )}
        >
          {trouble.text}
        </p>
      ) : null}
      <CellOutputs item={item} sessionId={sessionId} filled={outputs.length > 0} />
      {item.input && changes ? <InputPrompt key={item.execution_id} item={item} request={item.input} /> : null}
    </div>
  );
}

function CellOutputs({ item, sessionId, filled }: { item: Item; sessionId: string; filled: boolean }) {
  const s = useStrings();
  const actions = useActions();
  // A run begins by taking the old outputs away. Their room is kept until the
  // new ones have had a moment to be drawn, so that what is below stays in place.
  const box = useRef<HTMLDivElement>(null);
  const height = useRef(0);
  const runs = active(item.status);
  const ran = useSettled(runs, 500);
  const kept = runs || ran ? Math.min(height.current, 1200) : 0;
  useEffect(() => {
    const element = box.current;
    if (!element || runs || ran || typeof ResizeObserver === "undefined") return;
    const observer = new ResizeObserver(() => {
      height.current = element.offsetHeight;
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, [runs, ran]);
  if (item.outputs_hidden) {
    if (!filled) return null;
    return (
      <button
        type="button"
        className="flex h-9 w-full items-center border-line border-t px-4 text-left text-muted text-xs hover:text-ink"
        onClick={() => actions.edit(item.id, { outputs_hidden: false })}
      >
        {s.hiddenOutputs}
      </button>
    );
  }
  return (
    <div
      ref={box}
      className={filled || kept > 0 ? "min-w-0 border-line border-t px-1 py-1.5 sm:pr-3 sm:pl-11" : undefined}
      style={kept > 0 ? { minHeight: kept } : undefined}
    >
      <Outputs item={item} sessionId={sessionId} />
    </div>
  );
}
