import { createContext, useContext } from "react";
import { createStore, type StoreApi, useStore } from "zustand";
import type { Item } from "@/api/types";
import { openDialog } from "@/app/layout";
import { mayChange } from "@/features/account/me";
import { copyText } from "@/features/chat/markdown/copy";
import type { SessionActions, SessionState } from "@/features/session";
import { type Effect, type Entry, initialKeys, type Key, type KeyState, pressKey, takesKeys } from "./keyboard";

/** What an entry of the thread lets the keyboard do with it. */
export interface EntryHandle {
  /** Focuses the entry as a whole, and brings it into view. */
  focus(): void;
  /** Puts the caret into it. */
  edit(at?: "start" | "end"): void;
  /** Ends editing, of notes: shows the text. */
  finish?(): void;
}

export interface NotebookState extends KeyState {
  lines: ReadonlySet<string>; // cells with line numbers
  restarting: boolean; // the question whether to restart is open
}

/** The event by which the composer is asked to take the focus. */
export const composerEvent = "caesarion:composer";

/** What needs more rights than to look. */
const changing: ReadonlySet<Effect["do"]> = new Set([
  "edit",
  "run",
  "insert",
  "delete",
  "cut",
  "paste",
  "undoDelete",
  "toNote",
  "toCell",
  "moveUp",
  "moveDown",
  "toggleOutputs",
  "toggleCode",
  "interrupt",
  "restart",
] as const);

let clipboard: { kind: "cell" | "note"; text: string } | null = null;

/** Carries out what the keyboard asks for, in one session. */
export class Notebook {
  readonly state: StoreApi<NotebookState>;
  private readonly handles = new Map<string, EntryHandle>();
  private readonly removed: string[] = [];
  private awaited: { id: string; edit: boolean } | null = null;
  private readonly actions: SessionActions;
  private readonly session: () => SessionState;

  constructor(session: () => SessionState, actions: SessionActions) {
    this.session = session;
    this.actions = actions;
    this.state = createStore<NotebookState>(() => ({ ...initialKeys, lines: new Set(), restarting: false }));
  }

  register(id: string, handle: EntryHandle): () => void {
    this.handles.set(id, handle);
    if (this.awaited?.id === id) {
      const { edit } = this.awaited;
      this.awaited = null;
      queueMicrotask(() => (edit ? handle.edit("end") : handle.focus()));
    }
    return () => {
      if (this.handles.get(id) === handle) this.handles.delete(id);
    };
  }

  entries(): Entry[] {
    const { order, items } = this.session();
    return order.flatMap((id) => {
      const item = items.get(id);
      return item ? [{ id, kind: item.kind }] : [];
    });
  }

  focused(id: string, mode: "command" | "edit"): void {
    const { selected, mode: before } = this.state.getState();
    if (selected !== id || mode !== before) this.state.setState({ selected: id, mode, pending: "" });
  }

  /** Gives a key to the notebook; tells whether it took it. */
  press(event: KeyboardEvent | React.KeyboardEvent, inEditor: boolean): boolean {
    if ("isComposing" in event && event.isComposing) return false;
    if (!inEditor && takesKeys(event.target, event.key)) return false;
    const key: Key = {
      key: event.key,
      shift: event.shiftKey,
      ctrl: event.ctrlKey || event.metaKey,
      alt: event.altKey,
      at: event.timeStamp,
    };
    const before = this.state.getState();
    const { state, effects, used } = pressKey({ ...before, mode: inEditor ? "edit" : "command" }, key, this.entries());
    if (used || state !== before) this.state.setState(state);
    for (const effect of effects) this.carryOut(effect);
    if (used) {
      event.preventDefault();
      event.stopPropagation();
    }
    return used;
  }

  /** The caret leaves an editor over its first or last line. */
  edge(id: string, direction: "up" | "down"): boolean {
    const entries = this.entries();
    const next = entries[entries.findIndex((e) => e.id === id) + (direction === "up" ? -1 : 1)];
    if (!next) {
      if (direction === "down") window.dispatchEvent(new Event(composerEvent));
      return direction === "down";
    }
    if (next.kind === "cell") this.handles.get(next.id)?.edit(direction === "up" ? "end" : "start");
    else this.select(next.id);
    return true;
  }

  select(id: string): void {
    this.state.setState({ selected: id, mode: "command", pending: "" });
    this.handles.get(id)?.focus();
  }

  edit(id: string): void {
    this.handles.get(id)?.edit();
  }

  /** A new cell or note behind an entry; null: at the end, "": at the very beginning. */
  async insert(kind: "cell" | "note", after: string | null, edit: boolean, text = ""): Promise<Item | undefined> {
    if (kind === "cell") void this.actions.ensureSandbox();
    const item = await this.actions.addItem({
      kind,
      ...(after === null ? {} : { after }),
      ...(text === "" ? {} : kind === "cell" ? { code: text } : { text }),
    });
    if (!item) return undefined;
    this.state.setState({ selected: item.id, mode: edit ? "edit" : "command", pending: "" });
    const handle = this.handles.get(item.id);
    if (!handle) this.awaited = { id: item.id, edit };
    else if (edit) handle.edit("end");
    else handle.focus();
    return item;
  }

  run(id: string): void {
    // A cell that was just made may not be among the items yet.
    if (this.session().items.get(id)?.kind !== "note") void this.actions.run([id]);
    else {
      this.handles.get(id)?.finish?.();
      void this.actions.saveEdits(id);
    }
  }

  async remove(id: string): Promise<void> {
    const order = this.session().order;
    const at = order.indexOf(id);
    const next = order[at + 1] ?? order[at - 1];
    this.removed.push(id);
    if (next && this.state.getState().selected === id) this.select(next);
    await this.actions.removeItem(id);
  }

  move(id: string, by: -1 | 1): void {
    const order = this.session().order;
    const at = order.indexOf(id);
    if (at < 0 || (by < 0 ? at === 0 : at === order.length - 1)) return;
    const after = by < 0 ? (order[at - 2] ?? "") : (order[at + 1] ?? "");
    void this.actions.move(id, after).then((ok) => ok && this.focusLater(id));
  }

  toggleLines(id: string): void {
    const lines = new Set(this.state.getState().lines);
    if (!lines.delete(id)) lines.add(id);
    this.state.setState({ lines });
  }

  private focusLater(id: string): void {
    // Its new place is drawn with the event that tells of it.
    setTimeout(() => {
      if (this.state.getState().selected === id && this.state.getState().mode === "command")
        this.handles.get(id)?.focus();
    }, 120);
  }

  private copy(id: string): void {
    const item = this.session().items.get(id);
    if (!item) return;
    const text = item.kind === "cell" ? (item.code ?? "") : (item.text ?? "");
    clipboard = { kind: item.kind === "cell" ? "cell" : "note", text };
    void copyText(text);
  }

  private carryOut(effect: Effect): void {
    if (changing.has(effect.do) && !mayChange()) return;
    const item = "id" in effect ? this.session().items.get(effect.id) : undefined;
    switch (effect.do) {
      case "select":
        this.select(effect.id);
        return;
      case "leave":
        this.handles.get(effect.id)?.finish?.();
        this.handles.get(effect.id)?.focus();
        return;
      case "edit":
        this.handles.get(effect.id)?.edit();
        return;
      case "run":
        this.run(effect.id);
        if (effect.go === "insert") void this.insert("cell", effect.id, true);
        else if (effect.go === "next" && this.session().order.at(-1) === effect.id)
          void this.insert("cell", effect.id, true);
        return;
      case "insert":
        void this.insert(effect.kind, effect.after ?? (effect.before ? "" : null), false);
        return;
      case "delete":
        void this.remove(effect.id);
        return;
      case "cut":
        this.copy(effect.id);
        void this.remove(effect.id);
        return;
      case "copy":
        this.copy(effect.id);
        return;
      case "paste":
        if (clipboard) void this.insert(clipboard.kind, effect.after, false, clipboard.text);
        return;
      case "undoDelete": {
        // One that could not be deleted is still there.
        let id = this.removed.pop();
        while (id !== undefined && this.session().order.includes(id)) id = this.removed.pop();
        if (id === undefined) return;
        this.awaited = { id, edit: false };
        void this.actions.restoreItem(id);
        return;
      }
      case "toNote":
        this.actions.edit(effect.id, { kind: "note" });
        return;
      case "toCell":
        this.actions.edit(effect.id, { kind: "cell" });
        return;
      case "moveUp":
        this.move(effect.id, -1);
        return;
      case "moveDown":
        this.move(effect.id, 1);
        return;
      case "toggleOutputs":
        this.actions.edit(effect.id, { outputs_hidden: !item?.outputs_hidden });
        return;
      case "toggleCode":
        this.actions.edit(effect.id, { code_hidden: !item?.code_hidden });
        return;
      case "toggleLines":
        this.toggleLines(effect.id);
        return;
      case "interrupt":
        void this.actions.interrupt();
        return;
      case "restart":
        this.state.setState({ restarting: true });
        return;
      case "help":
        openDialog("shortcuts");
        return;
      case "composer":
        window.dispatchEvent(new Event(composerEvent));
        return;
      case "find":
        return;
    }
  }
}

export const NotebookContext = createContext<Notebook | null>(null);

export function useNotebook(): Notebook {
  const notebook = useContext(NotebookContext);
  if (!notebook) throw new Error("outside of a thread");
  return notebook;
}

export function useNotebookState<T>(select: (state: NotebookState) => T): T {
  return useStore(useNotebook().state, select);
}
