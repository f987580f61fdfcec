// One store per session: the thread as the events make it, the person's own
// edits that the server has not confirmed yet, and the state of the connection.
import { createStore, type StoreApi } from "zustand/vanilla";
import { ApiError, call, sessionPath } from "@/api/client";
import { type Connection, follow } from "@/api/events";
import type { CreateSession, Item, Session, SessionDetail, SessionEvent, UpdateItem } from "@/api/types";
import { queryClient } from "@/lib/query";
import { emptyThread, load, reduce, type Thread } from "./reducer";

export interface SessionState extends Thread {
  /** Empty while nothing was done yet that needs a session. */
  id: string;
  /** draft: there is none yet; the first thing that needs one makes it. */
  status: "draft" | "loading" | "ready" | "failed";
  error: ApiError | null;
  connection: Connection;
  /** The model chosen before there is a session; undefined: the default. */
  draftModel: string | undefined;
}

type Edit = { patch: UpdateItem; saved: boolean };

/** How long a saved edit stands over what the stream says, until its event came. */
const settle = 3000;

export class SessionStore {
  readonly state: StoreApi<SessionState>;
  private stream: { close: () => void; retry: () => void } | null = null;
  private buffer: SessionEvent[] = [];
  private scheduled = false;
  private edits = new Map<string, Edit>();
  private creating: Promise<string> | null = null;
  private loading: Promise<void> | null = null;
  private opened = false; // somebody looks at it

  constructor(id = "") {
    this.state = createStore<SessionState>(() => ({
      ...emptyThread,
      id,
      status: id === "" ? "draft" : "loading",
      error: null,
      connection: "connecting",
      draftModel: undefined,
    }));
  }

  get = () => this.state.getState();

  /** Loads the session unless it is here, and follows it. */
  open(): void {
    this.opened = true;
    const { id, status } = this.get();
    if (id === "" || this.stream || this.loading) return;
    if (status === "ready") this.follow();
    else void this.reload();
  }

  /** Stops following; what is here stays, and open continues from there. */
  close(): void {
    this.opened = false;
    this.stream?.close();
    this.stream = null;
    this.flush();
  }

  retry(): void {
    if (this.stream) this.stream.retry();
    else void this.reload();
  }

  /** Gets the whole session again: at first, and when events are missing. */
  reload(): Promise<void> {
    this.loading ??= this.fetchDetail().finally(() => {
      this.loading = null;
    });
    return this.loading;
  }

  private async fetchDetail(): Promise<void> {
    const { id } = this.get();
    this.stream?.close();
    this.stream = null;
    if (this.get().status === "failed") this.state.setState({ status: "loading", error: null });
    try {
      const detail = await call<SessionDetail>("GET", sessionPath(id));
      this.buffer = [];
      this.set({ ...load(detail, this.get()), status: "ready", error: null });
      this.follow();
    } catch (err) {
      const error = err instanceof ApiError ? err : new ApiError(0, "client", String(err));
      this.state.setState({ status: "failed", error });
    }
  }

  /** The session's id; makes the session if there is none. Callers at once wait for the same one. */
  ensure(): Promise<string> {
    const { id } = this.get();
    if (id !== "") return Promise.resolve(id);
    this.creating ??= this.create().catch((err: unknown) => {
      this.creating = null;
      throw err;
    });
    return this.creating;
  }

  private async create(): Promise<string> {
    const { draftModel } = this.get();
    const body: CreateSession = draftModel === undefined ? {} : { model: draftModel };
    const session = await call<Session>("POST", "/v1/sessions", { body });
    this.state.setState({ id: session.id, session, seq: session.last_seq, status: "ready" });
    this.follow();
    adopt(session.id, this);
    void queryClient.invalidateQueries({ queryKey: ["sessions"] });
    return session.id;
  }

  private follow(): void {
    if (!this.opened) return;
    const { id, seq } = this.get();
    this.stream?.close();
    this.stream = follow({
      url: sessionPath(id, "events"),
      after: seq,
      onEvents: (events) => this.receive(events),
      onGap: () => {
        this.stream = null;
        void this.reload();
      },
      onSessions: () => void queryClient.invalidateQueries({ queryKey: ["sessions"] }),
      onState: (connection) => this.state.setState({ connection }),
      onRefused: (err) => {
        this.stream = null;
        this.state.setState({ status: "failed", error: err instanceof ApiError ? err : null });
      },
    });
  }

  /** Takes events; they show with the next frame, all that came until then at once. */
  receive(events: readonly SessionEvent[]): void {
    for (const event of events) this.buffer.push(event);
    if (this.scheduled) return;
    this.scheduled = true;
    // A hidden page draws no frames.
    if (document.hidden) setTimeout(() => this.flush(), 200);
    else requestAnimationFrame(() => this.flush());
  }

  flush(): void {
    this.scheduled = false;
    if (this.buffer.length === 0) return;
    const events = this.buffer;
    this.buffer = [];
    this.set(reduce(this.get(), events));
  }

  private set(next: Partial<SessionState> & Thread): void {
    this.state.setState({ ...next, items: this.overlay(next.items) });
  }

  /** Puts edits over items that come from the server with older values. */
  private overlay(items: ReadonlyMap<string, Item>): ReadonlyMap<string, Item> {
    let copy: Map<string, Item> | null = null;
    for (const [id, { patch, saved }] of this.edits) {
      const item = items.get(id);
      if (!item) continue;
      if (differs(item, patch)) {
        copy ??= new Map(items);
        copy.set(id, { ...item, ...patch } as Item);
      } else if (saved) {
        this.edits.delete(id); // its event is here
      }
    }
    return copy ?? items;
  }

  /** Shows an edit at once. The caller saves it, and then calls settled or revert. */
  edit(id: string, patch: UpdateItem): void {
    const earlier = this.edits.get(id);
    this.edits.set(id, { patch: { ...earlier?.patch, ...patch }, saved: false });
    this.state.setState({ items: this.overlay(this.get().items) });
  }

  /** The server has the edit: its event will come, or has come. */
  settled(id: string, patch: UpdateItem): void {
    const edit = this.edits.get(id);
    if (
      !edit ||
      Object.keys(edit.patch).some((k) => edit.patch[k as keyof UpdateItem] !== patch[k as keyof UpdateItem])
    )
      return;
    edit.saved = true;
    setTimeout(() => {
      if (this.edits.get(id) === edit && edit.saved) this.edits.delete(id);
    }, settle);
  }

  /** The server refused the edit: back to what it has. */
  revert(id: string, before: Item): void {
    this.edits.delete(id);
    this.put(before);
  }

  /** Changes one item of the state. */
  put(item: Item): void {
    const items = new Map(this.get().items);
    items.set(item.id, item);
    this.state.setState({ items });
  }

  /** Changes the session of the state, before the server confirms it. */
  patchSession(change: Partial<Session>): void {
    const { session } = this.get();
    if (session) this.state.setState({ session: { ...session, ...change } });
  }
}

function differs(item: Item, patch: UpdateItem): boolean {
  return (["code", "text", "code_hidden", "outputs_hidden", "kind"] as const).some(
    (key) => patch[key] !== undefined && (item[key] ?? empty[key]) !== patch[key],
  );
}

// What a field means that the server left out.
const empty = { code: "", text: "", code_hidden: false, outputs_hidden: false, kind: undefined } as const;

// The sessions that were opened last stay in memory, so that going back to one
// is immediate: it only fetches what happened since.
const keep = 8;
const stores = new Map<string, SessionStore>();
let onAdopt: (id: string) => void = () => {};
let draft: SessionStore | null = null;

/** The store of a session that does not exist yet. */
export function draftStore(): SessionStore {
  if (draft?.get().id !== "") draft = new SessionStore();
  return draft;
}

/** The store of a session, opened before or new. */
export function storeOf(id: string): SessionStore {
  const store = stores.get(id) ?? new SessionStore(id);
  stores.delete(id);
  stores.set(id, store); // the newest is the last
  for (const [old] of stores) {
    if (stores.size <= keep) break;
    stores.get(old)?.close();
    stores.delete(old);
  }
  return store;
}

/** Forgets a session that was deleted. */
export function forget(id: string): void {
  stores.get(id)?.close();
  stores.delete(id);
}

function adopt(id: string, store: SessionStore): void {
  stores.set(id, store);
  onAdopt(id);
}

/** Says what happens when a draft becomes a session: the page shows its address. */
export function whenAdopted(listener: (id: string) => void): () => void {
  onAdopt = listener;
  return () => {
    onAdopt = () => {};
  };
}
