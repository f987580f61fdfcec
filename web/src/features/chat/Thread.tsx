import { ArrowDown } from "lucide-react";
import { memo, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { useMay } from "@/features/account/me";
import { Cell } from "@/features/notebook/Cell";
import { Notebook, NotebookContext, useNotebook, useNotebookState } from "@/features/notebook/controller";

import { loadEditor } from "@/features/notebook/editor/CodeEditor";
import { Note } from "@/features/notebook/Note";
import { RestartDialog } from "@/features/notebook/RestartDialog";
import { Notice } from "@/features/sandbox/Notice";
import { useActions, useItem, useSession, useSessionStore } from "@/features/session";
import { cx } from "@/lib/cx";
import { Announcer } from "./Announcer";
import { AnswerActions, AssistantMessage } from "./AssistantMessage";
import { DropLine } from "./DropLine";
import { Gap, InsertRow } from "./Insert";
import { RunCode } from "./markdown/context";
import { useNear, useReveal } from "./reveal";
import { useStickToEnd } from "./stick";
import { useStoreKey } from "./storeKey";
import { useStrings } from "./strings";
import { TurnStatus, Working } from "./TurnStatus";
import { estimate, keepSections, lastScreen, type Section, sections } from "./thread";
import { ToolCard } from "./tools/ToolCard";
import { UserMessage } from "./UserMessage";
import "./thread.css";

/** The messages and cells of a session, in order. */
export function Thread() {
  return <ThreadOf key={useStoreKey()} />;
}

function ThreadOf() {
  const s = useStrings();
  const store = useSessionStore();
  const actions = useActions();
  const notebook = useMemo(() => new Notebook(store.get, actions), [store, actions]);
  const list = useSections();
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLElement>(null);
  const { away, jump } = useStickToEnd(scroller, content);
  const reveal = useReveal(scroller, () => lastScreen(store.get().order, store.get().items, innerHeight));

  useEffect(() => {
    // By the time somebody clicks into a cell its editor is here.
    const idle = setTimeout(() => void loadEditor(), 150);
    return () => clearTimeout(idle);
  }, []);
  useEffect(() => {
    const id = decodeURIComponent(location.hash.slice(1));
    if (id) document.getElementById(id)?.scrollIntoView({ block: "start" });
  }, []);

  return (
    <NotebookContext value={notebook}>
      <div className="relative min-h-0 flex-1">
        {/* biome-ignore lint/a11y/noStaticElementInteractions: the keys of a notebook reach every entry in it */}
        <div
          ref={scroller}
          data-thread
          className="thread h-full overflow-y-auto overflow-x-hidden overscroll-contain"
          onKeyDown={(event) => {
            if (event.target instanceof Element && event.target.closest(".cm-editor")) return; // asked already
            notebook.press(event, false);
          }}
        >
          <section ref={content} className="mx-auto max-w-208 px-3 pt-4 pb-6 sm:px-8" aria-label={s.thread.label}>
            {list.map((section) => (
              <ThreadSection key={section.id} section={section} reveal={reveal} />
            ))}
            <Working />
            <TurnStatus />
            <InsertRow />
          </section>
          <DropLine scroller={scroller} />
        </div>
        <button
          type="button"
          aria-label={s.thread.latest}
          title={s.thread.latest}
          tabIndex={away ? 0 : -1}
          className={cx(
            "-translate-x-1/2 absolute bottom-3 left-1/2 z-10 inline-flex size-9 items-center justify-center rounded-full border bg-raised text-ink shadow-pop transition-opacity hover:bg-hover",
            away ? "opacity-100" : "pointer-events-none opacity-0",
          )}
          onClick={jump}
        >
          <ArrowDown className="size-4" aria-hidden />
        </button>
      </div>
      <Announcer />
      <RestartDialog />
    </NotebookContext>
  );
}

function useSections(): readonly Section[] {
  const order = useSession((state) => state.order);
  const store = useSessionStore();
  const kept = useRef<readonly Section[]>([]);
  return useMemo(() => {
    kept.current = keepSections(kept.current, sections(order, store.get().items));
    return kept.current;
  }, [order, store]);
}

type Reveal = ReturnType<typeof useReveal>;

const ThreadSection = memo(function ThreadSection({ section, reveal }: { section: Section; reveal: Reveal }) {
  // The last entry of each answer in here carries what can be done with it.
  const ends = useSession((state) => {
    const last = new Map<string, string>();
    for (const id of section.entries) {
      const turn = state.items.get(id)?.turn_id;
      if (turn && turn !== state.session?.turn?.id) last.set(turn, id);
    }
    return [...last.values()].join(" ");
  });
  const shown = ends.split(" ");
  return (
    <section>
      {section.entries.map((id) => (
        <Entry key={id} id={id} reveal={reveal} end={shown.includes(id)} />
      ))}
    </section>
  );
});

// Far entries are a box of about their height and nothing else: a session of
// hundreds opens with what is seen of it.
const Entry = memo(function Entry({ id, reveal, end }: { id: string; reveal: Reveal; end: boolean }) {
  const ref = useRef<HTMLDivElement>(null);
  const store = useSessionStore();
  const near = useNear(ref, id, reveal, store.get().order);
  // By what the entry was when it came; its real height the browser remembers.
  const [height] = useState(() => {
    const item = store.get().items.get(id);
    return item ? estimate(item) : 60;
  });
  if (near) return <NearEntry id={id} height={height} end={end} />;
  return <div ref={ref} id={id} data-entry={id} data-item-id={id} style={{ height: height + gap }} />;
});

// Height of the room before an entry.
const gap = 12;

function NearEntry({ id, height, end }: { id: string; height: number; end: boolean }) {
  const notebook = useNotebook();
  const selected = useNotebookState((state) => state.selected === id);
  const command = useNotebookState((state) => state.selected === id && state.mode === "command");
  const s = useStrings();
  const label = useSession((state) => {
    const item = state.items.get(id);
    return item ? s.thread.kinds[item.kind] : "";
  });
  const onFocus = useCallback(
    (event: React.FocusEvent) => {
      if (event.target instanceof Element && event.target.closest(".cm-content")) return;
      notebook.focused(id, "command");
    },
    [notebook, id],
  );
  return (
    <>
      <Gap id={id} />
      {/* biome-ignore lint/a11y/useSemanticElements: takes the focus in command mode, which a fieldset can't */}
      <div
        id={id}
        role="group"
        aria-label={label}
        data-entry={id}
        data-item-id={id}
        tabIndex={selected ? 0 : -1}
        onFocus={onFocus}
        className={cx("entry", command && "entry-selected")}
        style={{ containIntrinsicSize: `auto ${height}px` }}
      >
        <Body id={id} end={end} />
      </div>
    </>
  );
}

function Body({ id, end }: { id: string; end: boolean }) {
  const item = useItem(id);
  const notebook = useNotebook();
  const runs = useMay("execute");
  const make = useCallback(
    async (code: string) => {
      const made = await notebook.insert("cell", id, false, code);
      if (made) notebook.run(made.id);
    },
    [notebook, id],
  );
  const run = runs ? make : null;
  if (!item) return null;
  return (
    <>
      {item.kind === "user" ? (
        <UserMessage item={item} />
      ) : item.kind === "assistant" ? (
        <RunCode value={run}>
          <AssistantMessage item={item} />
        </RunCode>
      ) : item.kind === "cell" ? (
        <Cell id={id} />
      ) : item.kind === "note" && item.reason ? (
        <Notice item={item} />
      ) : item.kind === "note" ? (
        <RunCode value={run}>
          <Note item={item} />
        </RunCode>
      ) : (
        <ToolCard item={item} />
      )}
      {end ? <AnswerActions last={item} /> : null}
    </>
  );
}
