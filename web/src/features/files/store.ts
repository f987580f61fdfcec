import { createStore, type StoreApi } from "zustand/vanilla";
import { ApiError } from "@/api/client";
import { remember, remembered } from "@/lib/storage";
import type { Entry } from "./api";
import * as api from "./api";
import { base, freeName, join, parent, within } from "./paths";
import { type Folder, isFolder, roots, sorted, topmost } from "./tree";

export interface FilesState {
  folders: ReadonlyMap<string, Folder>;
  expanded: ReadonlySet<string>;
  selected: ReadonlySet<string>;
  /** Where the keyboard is. */
  cursor: string;
  /** Where a selection with shift begins. */
  anchor: string;
  filter: string;
  hidden: boolean;
  /** The path whose name is being edited. */
  renaming: string | null;
  /** The folder that gets a new one, whose name is being typed. */
  making: string | null;
  /** Marks that were looked at: path and the run that made it. */
  seen: ReadonlySet<string>;
}

// A folder with all below it is loaded for a search; a tree with more folders
// than this is searched in part.
const searchedFolders = 300;
const seenKept = 500;

/** The files of one session: what is loaded of the tree, and what is done to it. */
export class Files {
  readonly store: StoreApi<FilesState>;
  private loading = new Map<string, Promise<void>>();
  private again = new Set<string>();

  readonly sessionId: string;

  constructor(sessionId: string) {
    this.sessionId = sessionId;
    this.store = createStore<FilesState>(() => ({
      folders: new Map(),
      expanded: new Set(roots),
      selected: new Set(),
      cursor: roots[0],
      anchor: roots[0],
      filter: "",
      hidden: false,
      renaming: null,
      making: null,
      seen: new Set(this.rememberedSeen()),
    }));
  }

  private get state(): FilesState {
    return this.store.getState();
  }

  private setFolder(path: string, folder: Folder): void {
    this.store.setState((s) => ({ folders: new Map(s.folders).set(path, folder) }));
  }

  /** Loads a folder; while it is being loaded, once more after that. */
  load(path: string): Promise<void> {
    const running = this.loading.get(path);
    if (running) {
      this.again.add(path);
      return running;
    }
    const promise = this.fetchFolder(path).finally(() => {
      this.loading.delete(path);
      if (this.again.delete(path)) void this.load(path);
    });
    this.loading.set(path, promise);
    return promise;
  }

  private async fetchFolder(path: string): Promise<void> {
    const before = this.state.folders.get(path);
    if (!before) this.setFolder(path, { status: "loading", entries: [], truncated: false });
    try {
      const entry = await api.stat(this.sessionId, path);
      this.setFolder(path, {
        status: "ready",
        entries: sorted(entry.entries ?? []),
        truncated: entry.truncated ?? false,
        ...(entry.notice ? { notice: entry.notice } : {}),
      });
    } catch (err) {
      const gone = err instanceof ApiError && err.status === 404;
      if (gone && (roots as readonly string[]).includes(path)) {
        this.setFolder(path, { status: "ready", entries: [], truncated: false });
      } else if (gone) {
        this.forget(path);
      } else {
        const problem = err instanceof ApiError ? [err.detail, err.hint].filter(Boolean).join(" ") : String(err);
        // What was there stays to be seen: it is the best we know.
        this.setFolder(path, {
          status: "failed",
          entries: before?.entries ?? [],
          truncated: before?.truncated ?? false,
          problem,
        });
      }
    }
  }

  /** Takes a path and all below it out of what is known. */
  private forget(path: string): void {
    const inside = (p: string) => within(p, path);
    this.store.setState((s) => ({
      folders: new Map([...s.folders].filter(([p]) => !inside(p))),
      expanded: new Set([...s.expanded].filter((p) => !inside(p))),
      selected: new Set([...s.selected].filter((p) => !inside(p))),
      cursor: inside(s.cursor) ? parent(path) : s.cursor,
    }));
  }

  /** Loads again what is open. What is closed is loaded when it opens. */
  async refresh(): Promise<void> {
    const { folders, expanded } = this.state;
    const open = new Set<string>([...roots, ...expanded]);
    const closed = [...folders.keys()].filter((p) => !open.has(p));
    if (closed.length > 0 && this.state.filter === "") {
      this.store.setState((s) => ({ folders: new Map([...s.folders].filter(([p]) => !closed.includes(p))) }));
    }
    const wanted = this.state.filter === "" ? [...open] : [...new Set([...open, ...folders.keys()])];
    await Promise.all(wanted.map((path) => this.load(path)));
  }

  async expand(path: string): Promise<void> {
    this.store.setState((s) => ({ expanded: new Set(s.expanded).add(path) }));
    if (!this.state.folders.has(path)) await this.load(path);
  }

  collapse(path: string): void {
    this.store.setState((s) => {
      const expanded = new Set(s.expanded);
      expanded.delete(path);
      return { expanded, cursor: within(s.cursor, path) ? path : s.cursor };
    });
  }

  toggle(path: string): void {
    if (this.state.expanded.has(path)) this.collapse(path);
    else void this.expand(path);
  }

  /** Opens the way to a path and puts the cursor on it. */
  async reveal(path: string): Promise<void> {
    const root = roots.find((r) => within(path, r));
    if (!root) return;
    const way: string[] = [];
    for (let p = parent(path); within(p, root); p = parent(p)) way.unshift(p);
    for (const p of way) await this.expand(p);
    this.store.setState({ cursor: path, anchor: path, selected: new Set([path]) });
  }

  async search(text: string): Promise<void> {
    const filter = text.trim().toLowerCase();
    this.store.setState({ filter });
    if (filter === "") return;
    const queue: string[] = [...roots];
    for (let n = 0; queue.length > 0 && n < searchedFolders && this.state.filter === filter; n++) {
      const path = queue.shift() as string;
      if (this.state.folders.get(path)?.status !== "ready") await this.load(path);
      for (const e of this.state.folders.get(path)?.entries ?? []) {
        if (isFolder(e) && (this.state.hidden || !e.name.startsWith("."))) queue.push(e.path);
      }
    }
  }

  set(patch: Partial<FilesState>): void {
    this.store.setState(patch);
  }

  entry(path: string): Entry | undefined {
    return this.state.folders.get(parent(path))?.entries.find((e) => e.path === path);
  }

  select(path: string): void {
    this.store.setState({ cursor: path, anchor: path, selected: new Set([path]) });
  }

  // --- what is done to files; each throws ApiError if it fails ---

  async rename(path: string, name: string): Promise<string> {
    const to = join(parent(path), name);
    if (to !== path) await this.move(path, to);
    return to;
  }

  async move(from: string, to: string): Promise<void> {
    await api.moveFile(this.sessionId, from, to);
    const inside = within;
    this.store.setState((s) => ({
      expanded: new Set([...s.expanded].map((p) => (inside(p, from) ? to + p.slice(from.length) : p))),
      folders: new Map([...s.folders].filter(([p]) => !inside(p, from))),
      selected: new Set([to]),
      cursor: to,
      anchor: to,
    }));
    await Promise.all([
      this.load(parent(from)),
      this.load(parent(to)),
      ...(this.state.expanded.has(to) ? [this.load(to)] : []),
    ]);
  }

  /** Moves several into a folder; tells which could not, because the name is taken there. */
  async moveInto(paths: Iterable<string>, dir: string): Promise<string[]> {
    const taken: string[] = [];
    for (const path of topmost(paths)) {
      if (parent(path) === dir || within(dir, path)) continue;
      try {
        await this.move(path, join(dir, base(path)));
      } catch (err) {
        if (!(err instanceof ApiError) || err.code !== "file-exists") throw err;
        taken.push(path);
      }
    }
    return taken;
  }

  /** Deletes; gives those that are gone now, for undo. */
  async remove(paths: Iterable<string>): Promise<string[]> {
    const gone: string[] = [];
    const dirs = new Set<string>();
    try {
      for (const path of topmost(paths)) {
        await api.removeFile(this.sessionId, path);
        gone.push(path);
        dirs.add(parent(path));
        this.takeOut(path);
      }
    } finally {
      await Promise.all([...dirs].map((dir) => this.load(dir)));
    }
    return gone;
  }

  private takeOut(path: string): void {
    const dir = this.state.folders.get(parent(path));
    if (dir) this.setFolder(parent(path), { ...dir, entries: dir.entries.filter((e) => e.path !== path) });
    this.forget(path);
  }

  async restore(paths: readonly string[]): Promise<void> {
    for (const path of paths) await api.restoreFile(this.sessionId, path);
    await Promise.all([...new Set(paths.map(parent))].map((dir) => this.load(dir)));
    this.store.setState({ selected: new Set(paths), cursor: paths[0] ?? roots[0] });
  }

  async makeFolder(dir: string, name: string): Promise<string> {
    const path = join(dir, name);
    await api.makeFolder(this.sessionId, path);
    await this.expand(dir);
    await this.load(dir);
    this.select(path);
    return path;
  }

  /** A name for a new folder that is not taken. */
  freeFolderName(dir: string, name: string): string {
    const taken = (n: string) => this.state.folders.get(dir)?.entries.some((e) => e.name === n) ?? false;
    return taken(name) ? freeName(name, taken) : name;
  }

  // --- marks ---

  private rememberedSeen(): string[] {
    try {
      const all: unknown = JSON.parse(remembered(`seen.${this.sessionId}`) ?? "[]");
      return Array.isArray(all) ? all.filter((x) => typeof x === "string") : [];
    } catch {
      return [];
    }
  }

  /** Notes that marks were looked at. */
  see(keys: Iterable<string>): void {
    const fresh = [...keys].filter((k) => !this.state.seen.has(k));
    if (fresh.length === 0) return;
    const seen = [...this.state.seen, ...fresh].slice(-seenKept);
    this.store.setState({ seen: new Set(seen) });
    remember(`seen.${this.sessionId}`, JSON.stringify(seen));
  }
}

const all = new Map<string, Files>();

/** The files of a session; the same for all who ask. */
export function filesOf(sessionId: string): Files {
  let files = all.get(sessionId);
  if (!files) {
    files = new Files(sessionId);
    all.set(sessionId, files);
  }
  return files;
}
