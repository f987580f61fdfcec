import type { AuditEntry } from "./types";

export interface AuditFilter {
  user: string;
  action: string;
  object: string;
  organisation: string; // "": one's own
}

export const noFilter: AuditFilter = { user: "", action: "", object: "", organisation: "" };

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
