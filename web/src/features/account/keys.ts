import type { Key } from "./types";

const day = 86_400_000;

/** How long a key can be valid, by what is offered; 0: for ever. */
export const lives = { week: 7 * day, month: 30 * day, quarter: 90 * day, year: 365 * day, ever: 0 } as const;
export type Life = keyof typeof lives;

/** How long the old key stays when a new one takes its place. */
export const overlaps = { none: 0, hour: day / 24, day, week: 7 * day } as const;
export type Overlap = keyof typeof overlaps;

export type KeyState = "active" | "soon" | "expired" | "revoked";

/** The state of a key; soon: it ends within a week. */
export function keyState(key: Pick<Key, "state" | "expires_at">, now = Date.now()): KeyState {
  if (key.state !== "active") return key.state;
  if (!key.expires_at) return "active";
  const left = Date.parse(key.expires_at) - now;
  if (left <= 0) return "expired";
  return left < lives.week ? "soon" : "active";
}

/** Keys that work first, each group in the server's order. */
export function usableFirst(keys: readonly Key[], now = Date.now()): Key[] {
  const over = (key: Key) => ["expired", "revoked"].includes(keyState(key, now));
  return [...keys.filter((key) => !over(key)), ...keys.filter(over)];
}
