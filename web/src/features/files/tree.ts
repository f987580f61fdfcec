// The tree as rows from top to bottom: what is visible, where the cursor goes.

import type { Entry } from "./api";
import { base, within } from "./paths";

export const roots = ["/workspace", "/uploaded_files"] as const;

export interface Folder {
  status: "loading" | "ready" | "failed";
  entries: readonly Entry[];
  truncated: boolean;
  notice?: string;
  problem?: string;
}

export interface Row {
  path: string;
  name: string;
  /** 1 for the roots, as aria-level counts. */
  level: number;
  folder: boolean;
  expanded: boolean;
  entry?: Entry;
  position: number;
  of: number;
}

export interface View {
  folders: ReadonlyMap<string, Folder>;
  expanded: ReadonlySet<string>;
  /** In lower case; "" shows all. */
  filter: string;
  hidden: boolean;
}

const names = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

export function isFolder(entry: Entry): boolean {
  return entry.type === "directory";
}

/** Folders first, then names as people count: plot2 before plot10. */
export function sorted(entries: readonly Entry[]): Entry[] {
  return entries.toSorted((a, b) => Number(isFolder(b)) - Number(isFolder(a)) || names.compare(a.name, b.name));
}

function matches(path: string, view: View): boolean {
  if (base(path).toLowerCase().includes(view.filter)) return true;
  return view.folders.get(path)?.entries.some((e) => matches(e.path, view)) ?? false;
}

/** All rows that are to be seen. With a filter: what matches, and the folders on the way. */
export function flatten(view: View): Row[] {
  const rows: Row[] = [];
  const walk = (entries: readonly Entry[], level: number, underMatch: boolean) => {
    const shown = entries.filter(
      (e) => (view.hidden || !e.name.startsWith(".")) && (view.filter === "" || underMatch || matches(e.path, view)),
    );
    shown.forEach((entry, i) => {
      const folder = isFolder(entry);
      const hit = underMatch || (view.filter !== "" && entry.name.toLowerCase().includes(view.filter));
      const below = view.filter !== "" && !hit && folder;
      const expanded = folder && (view.expanded.has(entry.path) || below);
      const { path, name } = entry;
      rows.push({ path, name, level, folder, expanded, entry, position: i + 1, of: shown.length });
      if (expanded) walk(view.folders.get(path)?.entries ?? [], level + 1, hit);
    });
  };
  roots.forEach((path, i) => {
    const expanded = view.expanded.has(path) || view.filter !== "";
    rows.push({ path, name: base(path), level: 1, folder: true, expanded, position: i + 1, of: roots.length });
    if (expanded) walk(view.folders.get(path)?.entries ?? [], 2, false);
  });
  return rows;
}

/** What a key does in a tree, by the pattern of the ARIA authoring practices. */
export type Step = { go: string } | { expand: string } | { collapse: string } | undefined;

export function step(rows: readonly Row[], cursor: string, key: string, page = 10): Step {
  const at = rows.findIndex((r) => r.path === cursor);
  const row = rows[at];
  const go = (i: number): Step => {
    const to = rows[Math.max(0, Math.min(rows.length - 1, i))];
    return to && { go: to.path };
  };
  if (!row) return go(0);
  switch (key) {
    case "ArrowDown":
      return go(at + 1);
    case "ArrowUp":
      return go(at - 1);
    case "PageDown":
      return go(at + page);
    case "PageUp":
      return go(at - page);
    case "Home":
      return go(0);
    case "End":
      return go(rows.length - 1);
    case "ArrowRight":
      if (!row.folder) return undefined;
      if (!row.expanded) return { expand: row.path };
      return (rows[at + 1]?.level ?? 0) > row.level ? go(at + 1) : undefined;
    case "ArrowLeft":
      if (row.folder && row.expanded) return { collapse: row.path };
      for (let i = at - 1; i >= 0; i--) if ((rows[i]?.level ?? 0) < row.level) return go(i);
      return undefined;
    default:
      return undefined;
  }
}

/** The next row that begins with what was typed. */
export function typeAhead(rows: readonly Row[], cursor: string, typed: string): string | undefined {
  const at = rows.findIndex((r) => r.path === cursor);
  const first = typed.length === 1 ? at + 1 : at; // one letter goes on to the next, more stay where they fit
  for (let i = 0; i < rows.length; i++) {
    const row = rows[(Math.max(0, first) + i) % rows.length];
    if (row?.name.toLowerCase().startsWith(typed)) return row.path;
  }
  return undefined;
}

/** The rows from one to another, both with them. */
export function between(rows: readonly Row[], from: string, to: string): string[] {
  const a = rows.findIndex((r) => r.path === from);
  const b = rows.findIndex((r) => r.path === to);
  if (a < 0 || b < 0) return [to];
  return rows.slice(Math.min(a, b), Math.max(a, b) + 1).map((r) => r.path);
}

/** Without what lies in another one of the list: a folder takes its content along. */
export function topmost(paths: Iterable<string>): string[] {
  const all = [...paths];
  return all.filter((p) => !all.some((q) => q !== p && within(p, q)));
}
