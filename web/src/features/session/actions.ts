// Everything a person can do in a session. Each call shows a toast if it fails,
// and tells its caller by its value: undefined or false.
import { ApiError, call, sessionPath, withQuery } from "@/api/client";
import type {
  Completions,
  CreateItem,
  Inspection,
  IsComplete,
  Item,
  SendMessage,
  Session,
  SessionSandbox,
  UpdateItem,
  UpdateSession,
} from "@/api/types";
import { currentMe, may, mayChange } from "@/features/account/me";
import { toast } from "@/ui/toast";
import type { SessionStore } from "./store";
import { useStrings } from "./strings";

export type SessionActions = ReturnType<typeof createActions>;

/** Text that is typed is saved this long after the last key. */
const saveAfter = 500;

/** Refusals that say nothing of what was sent: no connection, nobody signed in, too long, too much for now. */
const later = new Set([0, 401, 408, 429]);

export function createActions(store: SessionStore) {
  const path = (...rest: string[]) => sessionPath(store.get().id, ...rest);

  /** Runs a call of the session, which is made if there is none. */
  async function attempt<T>(work: () => Promise<T>, again?: () => unknown): Promise<T | undefined> {
    if (!mayChange()) return undefined;
    try {
      await store.ensure();
      return await work();
    } catch (err) {
      toast.failure(err, undefined, again);
      return undefined;
    }
  }
  const done = async (work: () => Promise<unknown>, again?: () => unknown): Promise<boolean> =>
    (await attempt(async () => {
      await work();
      return true;
    }, again)) ?? false;

  const timers = new Map<string, ReturnType<typeof setTimeout>>();
  const unsaved = new Map<string, { patch: UpdateItem; before: Item }>();
  const saving = new Map<string, Promise<unknown>>();

  function save(id: string): Promise<unknown> {
    clearTimeout(timers.get(id));
    timers.delete(id);
    const edit = unsaved.get(id);
    if (!edit) return saving.get(id) ?? Promise.resolve();
    unsaved.delete(id);
    // One at a time for each item, or an older text could arrive last.
    const work = (saving.get(id) ?? Promise.resolve()).then(async () => {
      try {
        await call<Item>("PATCH", path("items", id), { body: edit.patch });
        store.settled(id, edit.patch);
      } catch (err) {
        // A text that can't be saved now is kept, and sent with the next edit or
        // when the connection is back; anything else goes back to what the server has.
        if (err instanceof ApiError && (later.has(err.status) || err.status >= 500)) {
          unsaved.set(id, { patch: { ...edit.patch, ...unsaved.get(id)?.patch }, before: edit.before });
        } else {
          store.revert(id, edit.before);
        }
        toast.failure(err);
      }
    });
    saving.set(id, work);
    void work.finally(() => {
      if (saving.get(id) === work) saving.delete(id);
    });
    return work;
  }

  let sandbox: Promise<void> | null = null;

  return {
    /** Makes the session if there is none yet; gives its id. */
    ensureSession: () => attempt(async () => store.get().id),

    /**
     * Asks for the sandbox, so that it is there and awake when it is needed. To be called
     * with the first keystroke; calling again costs nothing. Says nothing if it
     * fails: the sandbox's state does.
     */
    ensureSandbox(): Promise<void> {
      const state = store.get().session?.sandbox.state;
      if (!may(currentMe(), "execute")) return Promise.resolve();
      if (state !== undefined && state !== "none" && state !== "paused") return Promise.resolve();
      sandbox ??= store
        .ensure()
        .then(() => call<SessionSandbox>("POST", path("sandbox")))
        .then((answer) => {
          if (store.get().session?.sandbox.state === "none") store.patchSession({ sandbox: answer });
        })
        .catch(() => {})
        .finally(() => {
          sandbox = null;
        });
      return sandbox;
    },

    // The session itself.

    async updateSession(change: UpdateSession): Promise<boolean> {
      const { id, session } = store.get();
      if (id === "" || !session) {
        // Choosing a model is no reason to make a session.
        if (change.model !== undefined) store.state.setState({ draftModel: change.model });
        return true;
      }
      store.patchSession(change);
      const ok = await done(() => call<Session>("PATCH", path(), { body: change }));
      if (!ok) {
        store.patchSession({ title: session.title, pinned: session.pinned, model: session.model });
      }
      return ok;
    },

    // Cells and notes.

    /** A new cell or note; after: the item it comes behind, "" for the very first, undefined for the end. */
    addItem: (item: CreateItem) => attempt(() => call<Item>("POST", path("items"), { body: item })),

    /** Changes an item: shows it at once, and saves text shortly after the last key, everything else now. */
    edit(id: string, patch: UpdateItem): void {
      const before = unsaved.get(id)?.before ?? store.get().items.get(id);
      if (!before || !mayChange()) return;
      store.edit(id, patch);
      unsaved.set(id, { patch: { ...unsaved.get(id)?.patch, ...patch }, before });
      clearTimeout(timers.get(id));
      if (patch.code === undefined && patch.text === undefined) void save(id);
      else
        timers.set(
          id,
          setTimeout(() => void save(id), saveAfter),
        );
    },

    /** Saves what was typed in an item, or in all. */
    async saveEdits(id?: string): Promise<void> {
      await Promise.all((id === undefined ? [...unsaved.keys()] : [id]).map(save));
    },

    move: (id: string, after: string) => done(() => call("PATCH", path("items", id), { body: { after } })),

    /** Deletes an item; a cell at work is interrupted first. */
    async removeItem(id: string): Promise<void> {
      await save(id);
      const kind = store.get().items.get(id)?.kind;
      const ok = await done(async () => {
        if (atWork(store, id)) {
          await call("POST", path("items", id, "interrupt"));
          await ended(store, id);
        }
        await call("DELETE", path("items", id));
      });
      if (!ok) return;
      const s = useStrings.now();
      toast.undo(kind === "cell" ? s.cellDeleted : s.itemDeleted, () =>
        done(() => call("POST", path("items", id, "restore"))),
      );
    },

    restoreItem: (id: string) => done(() => call("POST", path("items", id, "restore"))),

    /** Runs cells in this order, with the code the person sees. */
    async run(ids: string[]): Promise<boolean> {
      if (ids.length === 0) return true;
      const code: Record<string, string> = {};
      for (const id of ids) {
        const edit = unsaved.get(id);
        if (edit?.patch.code === undefined) continue;
        code[id] = edit.patch.code;
        const { code: _, ...rest } = edit.patch;
        if (Object.keys(rest).length > 0) unsaved.set(id, { ...edit, patch: rest });
        else {
          unsaved.delete(id);
          clearTimeout(timers.get(id));
        }
      }
      await Promise.all(ids.map((id) => saving.get(id)));
      const ok = await done(
        () => call("POST", path("run"), { body: { items: ids, code } }),
        () => this.run(ids),
      );
      for (const [id, text] of Object.entries(code)) {
        if (ok) store.settled(id, { code: text });
        else this.edit(id, { code: text });
      }
      return ok;
    },

    runAll(): Promise<boolean> {
      const { order, items } = store.get();
      return this.run(order.filter((id) => items.get(id)?.kind === "cell"));
    },

    /** Runs a cell and all below it. */
    runFrom(id: string): Promise<boolean> {
      const { order, items } = store.get();
      return this.run(order.slice(order.indexOf(id)).filter((other) => items.get(other)?.kind === "cell"));
    },

    interrupt: () => done(() => call("POST", path("interrupt"))),
    clearOutputs: (id: string) => done(() => call("POST", path("items", id, "clear"))),
    clearAll: () => done(() => call("POST", path("clear"))),
    /** Answers input(). */
    input: (id: string, value: string) => done(() => call("POST", path("items", id, "input"), { body: { value } })),

    // The model.

    /** Sends a message; gives what the server made of it, or undefined if it did not take it. */
    send: (message: SendMessage) =>
      attempt(() => call<{ item_id?: string; queued?: { id: string } }>("POST", path("messages"), { body: message })),
    regenerate(id: string, model?: string): Promise<boolean> {
      return done(
        () => call("POST", path("items", id, "regenerate"), { body: model ? { model } : {} }),
        () => this.regenerate(id, model),
      );
    },
    stop: () => done(() => call("POST", path("stop"))),
    unqueue: (id: string) => done(() => call("DELETE", path("queue", id))),
    /** Goes on after a turn that was cut, failed or reached its bound. */
    continueTurn(): Promise<boolean> {
      return done(
        () => call("POST", path("continue")),
        () => this.continueTurn(),
      );
    },
    /** Shows another of an item's siblings. */
    select: (item: string) => done(() => call("POST", path("select"), { body: { item } })),

    // The sandbox.

    /** Wakes the sandbox. Its state says how it goes; what can't be asked for is said. */
    wakeSandbox(): Promise<boolean> {
      return done(
        () => call("POST", path("sandbox")),
        () => this.wakeSandbox(),
      );
    },
    /** Puts the sandbox to sleep: it is saved with its variables, and its memory is free. */
    pauseSandbox: () =>
      done(() => call("POST", `/v1/sandboxes/${encodeURIComponent(store.get().session?.sandbox.id ?? "")}/pause`)),
    freeSandbox: () => done(() => call("DELETE", path("sandbox"))),
    resetSandbox(): Promise<boolean> {
      return done(
        () => call("POST", path("sandbox", "reset")),
        () => this.resetSandbox(),
      );
    },
    restartKernel: () => done(() => call("POST", path("kernel", "restart"))),

    // Help from the kernel: silent, since it is asked for while typing.

    complete: (code: string, cursor: number, signal?: AbortSignal) =>
      quiet(() => call<Completions>("POST", path("complete"), { body: { code, cursor_pos: cursor }, ...opt(signal) })),
    inspect: (code: string, cursor: number, detail: 0 | 1 = 0, signal?: AbortSignal) =>
      quiet(() =>
        call<Inspection>("POST", path("inspect"), {
          body: { code, cursor_pos: cursor, detail_level: detail },
          ...opt(signal),
        }),
      ),
    isComplete: (code: string) => quiet(() => call<IsComplete>("POST", path("is-complete"), { body: { code } })),

    /** Address of the session as a file. */
    exportURL: (format: "ipynb" | "py" | "md") => withQuery(path("export"), { format }),
    /** Address of one value of an output, whole. */
    outputURL: (id: string, index: number, mime: string) =>
      withQuery(path("items", id, "outputs", String(index)), { mime }),
    /** Address of all text of a cell. */
    outputTextURL: (id: string) => path("items", id, "output"),
  };
}

const atWork = (store: SessionStore, id: string) =>
  ["running", "queued"].includes(store.get().items.get(id)?.status ?? "");

/** How long an interrupted cell may take to end: some code holds the interrupt back. */
const interruptWait = 5000;

/** Waits until a cell is not at work, or has had its time for that. */
function ended(store: SessionStore, id: string): Promise<void> {
  if (!atWork(store, id)) return Promise.resolve();
  return new Promise((resolve) => {
    const stop = store.state.subscribe(() => {
      if (!atWork(store, id)) finish();
    });
    const timer = setTimeout(() => finish(), interruptWait);
    const finish = () => {
      stop();
      clearTimeout(timer);
      resolve();
    };
  });
}

function opt(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal ? { signal } : {};
}

async function quiet<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch {
    return undefined;
  }
}
