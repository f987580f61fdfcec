import type { AuditEntry } from "./types";

export interface AuditFilter {
  user: string;
  action: string;
  object: string;
  organisation: string; // "": one's own
}

export const noFilter: AuditFilter = { user: "", action: "", object: "", organisation: "" };

const hour = 3_600_000;

/** How far back one can look; ever: to the first entry. */
export const periods = { ever: 0, hour, day: 24 * hour, week: 7 * 24 * hour, month: 30 * 24 * hour } as const;
export type Period = keyof typeof periods;

/** Entries come the latest first: the first that is too old ends what is shown. */
export function within<T extends Pick<AuditEntry, "at">>(
  entries: readonly T[],
  period: Period,
  now = Date.now(),
): { shown: T[]; ended: boolean } {
  if (period === "ever") return { shown: [...entries], ended: false };
  const end = entries.findIndex((entry) => now - Date.parse(entry.at) > periods[period]);
  return end < 0 ? { shown: [...entries], ended: false } : { shown: entries.slice(0, end), ended: true };
}

/** The query of one page; before: "next" of the page before, 0: the first. */
export function auditQuery(filter: AuditFilter, before: number, limit: number): Record<string, string | number> {
  const query: Record<string, string | number> = { limit };
  for (const [key, value] of Object.entries(filter)) {
    const text = value.trim();
    if (text !== "") query[key] = text;
  }
  if (before > 0) query.before = before;
  return query;
}

/** How it ended. */
export function outcome(entry: Pick<AuditEntry, "status">): "done" | "refused" | "failed" {
  if (entry.status < 400) return "done";
  return entry.status < 500 ? "refused" : "failed";
}
