import type { Item } from "@/api/types";
import { within } from "./paths";

/** That a cell made or changed a file, until a person looked at it. */
export interface Mark {
  path: string;
  change: "created" | "modified";
  itemId: string;
  /** Number of the run, as the cell shows it. */
  count: number;
  /** Tells this change from a later one of the same file. */
  key: string;
}

/** What the last runs did to files; a later run replaces what an earlier one says. */
export function marksOf(order: readonly string[], items: ReadonlyMap<string, Item>): Map<string, Mark> {
  const runs = order
    .map((id) => items.get(id))
    .filter((item): item is Item => (item?.changes?.length ?? 0) > 0)
    .toSorted((a, b) => (a.finished_at ?? a.started_at ?? "").localeCompare(b.finished_at ?? b.started_at ?? ""));
  const marks = new Map<string, Mark>();
  for (const item of runs) {
    for (const { path, change } of item.changes ?? []) {
      if (change === "deleted") {
        marks.delete(path);
        continue;
      }
      const before = marks.get(path);
      marks.set(path, {
        path,
        // New stays new when the same cell touches it twice.
        change: before?.change === "created" && before.itemId === item.id ? "created" : change,
        itemId: item.id,
        count: item.execution_count ?? 0,
        key: `${path}@${item.execution_id ?? item.id}`,
      });
    }
  }
  return marks;
}

/** Those nobody looked at yet. */
export function unseen(marks: ReadonlyMap<string, Mark>, seen: ReadonlySet<string>): Map<string, Mark> {
  return new Map([...marks].filter(([, mark]) => !seen.has(mark.key)));
}

/** Whether a closed folder holds something marked. */
export function holdsMark(marks: ReadonlyMap<string, Mark>, folder: string): boolean {
  for (const path of marks.keys()) if (path !== folder && within(path, folder)) return true;
  return false;
}
