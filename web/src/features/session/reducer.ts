// Turns a session's events into what the page shows. internal/session does the
// same on the server; both pass the fixtures in internal/session/testdata/reduce.
import type {
  InputRequest,
  Item,
  ItemStatus,
  Output,
  Session,
  SessionDetail,
  SessionEvent,
  SessionSandbox,
  Turn,
} from "@/api/types";
import { foldOutput, joinStreams, loadOutputs, updateDisplays } from "./outputs";

/** What the events of a session lead to. */
export interface Thread {
  session: Session | null;
  /** The visible items, by id. */
  items: ReadonlyMap<string, Item>;
  /** The visible ones, in order. */
  order: readonly string[];
  /** Number of the last event that is part of this. */
  seq: number;
  /** The turn that ended last, while it is the newest: tells how an answer ended. */
  lastTurn: Turn | null;
  /** Counts changes of files, for those who show them. */
  filesVersion: number;
  /** Counts runs that ended, for those who show variables. */
  runsVersion: number;
}

export const emptyThread: Thread = {
  session: null,
  items: new Map(),
  order: [],
  seq: 0,
  lastTurn: null,
  filesVersion: 0,
  runsVersion: 0,
};

function loadItem(item: Item): Item {
  return item.outputs ? { ...item, outputs: loadOutputs(item.outputs) } : item;
}

/** The state a whole session stands for. */
export function load(detail: SessionDetail, before: Thread = emptyThread): Thread {
  const { items, ...session } = detail;
  return {
    session,
    items: new Map(items.map((item) => [item.id, loadItem(item)])),
    order: items.map((item) => item.id),
    seq: session.last_seq,
    lastTurn: session.last_turn ?? null,
    filesVersion: before.filesVersion + 1,
    runsVersion: before.runsVersion + 1,
  };
}

/** Applies events, in order. Those that are already part of the state change nothing. */
export function reduce(thread: Thread, events: readonly SessionEvent[]): Thread {
  const draft = new Draft(thread);
  for (const event of joinStreams(events.filter((e) => e.seq > thread.seq))) draft.apply(event);
  const last = events.at(-1);
  return last && last.seq > thread.seq ? draft.finish(last.seq) : thread;
}

/** RFC 7396 on the top level: null removes, the rest replaces. */
function merge(item: Item, patch: Record<string, unknown>): Item {
  const next: Record<string, unknown> = { ...item };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete next[key];
    else next[key] = key === "outputs" ? loadOutputs(value as Output[]) : value;
  }
  return next as unknown as Item;
}

interface Finished {
  status: ItemStatus;
  reason?: string;
  message?: string;
  execution_count?: number;
  duration_ms?: number;
  output_bytes?: number;
  dropped_bytes?: number;
  output_file?: string;
}

// Sets what is there and removes what is not, as the server's omitempty does.
function set<K extends keyof Item>(item: Item, key: K, value: Item[K] | undefined): void {
  if (value === undefined || value === "" || value === 0 || value === false) delete item[key];
  else item[key] = value;
}

/** A thread being changed: copies the maps once, and each item once. */
class Draft {
  private thread: Thread;
  private items: Map<string, Item> | null = null;

  constructor(thread: Thread) {
    this.thread = thread;
  }

  finish(seq: number): Thread {
    return { ...this.thread, ...(this.items ? { items: this.items } : {}), seq };
  }

  private get(id: string | undefined): Item | undefined {
    return id === undefined ? undefined : (this.items ?? this.thread.items).get(id);
  }

  private put(item: Item): void {
    this.items ??= new Map(this.thread.items);
    this.items.set(item.id, item);
  }

  /** Makes these the visible items. */
  private keep(order: readonly string[]): void {
    const items = new Map<string, Item>();
    for (const id of order) {
      const item = this.get(id);
      if (item) items.set(id, item);
    }
    this.items = items;
    this.thread = { ...this.thread, order };
  }

  private session(change: Partial<Session>): void {
    if (this.thread.session) this.thread = { ...this.thread, session: { ...this.thread.session, ...change } };
  }

  apply(event: SessionEvent): void {
    const data = event.data;
    switch (event.type) {
      case "session.changed":
        this.thread = { ...this.thread, session: { ...(data as Session), last_seq: event.seq } };
        return;
      case "item.added":
        this.added(data as { item: Item; after: string });
        return;
      case "item.changed": {
        const item = this.get(event.item_id);
        if (item) this.put(merge(item, data as Record<string, unknown>));
        return;
      }
      case "item.delta": {
        const item = this.get(event.item_id);
        const { field, append } = data as { field: "text" | "code" | "reasoning"; append: string };
        if (item) this.put({ ...item, [field]: (item[field] ?? "") + append });
        return;
      }
      case "item.removed":
        this.keep(this.thread.order.filter((id) => id !== event.item_id));
        return;
      case "thread.changed": {
        const { order, items } = data as { order: string[]; items: Item[] | null };
        for (const item of items ?? []) this.put(loadItem(item));
        this.keep(order);
        return;
      }
      case "turn.started":
        this.thread = { ...this.thread, lastTurn: null };
        this.session({ turn: data as Turn });
        return;
      case "turn.finished": {
        this.thread = { ...this.thread, lastTurn: data as Turn };
        if (this.thread.session) {
          const { turn: _, ...session } = this.thread.session;
          this.thread = { ...this.thread, session };
        }
        return;
      }
      case "sandbox.changed":
        this.session({ sandbox: data as SessionSandbox });
        return;
      case "files.changed":
        this.thread = { ...this.thread, filesVersion: this.thread.filesVersion + 1 };
        return;
      default:
        this.execution(event);
    }
  }

  private added({ item, after }: { item: Item; after: string }): void {
    this.put(loadItem(item));
    const order = this.thread.order.filter((id) => id !== item.id);
    order.splice(order.indexOf(after) + 1, 0, item.id);
    this.thread = { ...this.thread, order };
  }

  private execution(event: SessionEvent): void {
    if (event.type === "output.update_display_data") {
      // Any cell may show the display, whichever code updates it.
      for (const item of (this.items ?? this.thread.items).values()) {
        if (!item.outputs) continue;
        const outputs = updateDisplays(item.outputs, event.data);
        if (outputs !== item.outputs) this.put({ ...item, outputs });
      }
    }
    const before = this.get(event.item_id);
    if (!before) return;
    const item = { ...before };
    if (event.type !== "input.requested") delete item.input;
    switch (event.type) {
      case "execution.queued":
        item.status = "queued";
        break;
      case "execution.started":
        item.status = "running";
        item.started_at = event.time;
        break;
      case "input.requested":
        item.input = event.data as InputRequest;
        break;
      case "execution.finished": {
        const end = event.data as Finished;
        item.status = end.status;
        set(item, "reason", end.reason);
        set(item, "message", end.message);
        set(item, "execution_count", end.execution_count);
        set(item, "duration_ms", end.duration_ms);
        set(item, "output_bytes", end.output_bytes);
        set(item, "dropped_bytes", end.dropped_bytes);
        set(item, "output_file", end.output_file);
        item.finished_at = event.time;
        this.thread = { ...this.thread, runsVersion: this.thread.runsVersion + 1 };
        break;
      }
      default:
        if (event.type.startsWith("output.")) item.outputs = foldOutput(item.outputs ?? [], event.type, event.data);
    }
    this.put(item);
  }
}
