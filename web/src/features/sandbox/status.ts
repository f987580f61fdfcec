import type { Connection } from "@/api/events";
import type { SessionSandbox } from "@/api/types";
import type { useStrings } from "./strings";

/** failed: there is none, since the last one could not be made. */
export type Shown = SessionSandbox["state"] | "unknown" | "failed";

// A sandbox that is gone for one of these was freed as it should be; any other
// reason of "none" is the code of what kept it from starting.
const freed = new Set(["", "deleted", "idle", "expired", "server_restarted"]);

/** What can be said for sure: with no connection, only what was known last. */
export function shownState(sandbox: SessionSandbox | undefined, connection: Connection): Shown {
  const state = sandbox?.state ?? "none";
  if (connection === "offline") return "unknown";
  return state === "none" && !freed.has(sandbox?.reason ?? "") ? "failed" : state;
}

type Strings = ReturnType<typeof useStrings>;

/** A few words for the pill. */
export function label(s: Strings, state: Shown, seconds: number): string {
  return state === "starting" ? s.starting(seconds) : s[state];
}

/** What it means, and what to do. */
export function explanation(s: Strings, state: Shown, sandbox: SessionSandbox | undefined, seconds: number): string {
  switch (state) {
    case "unknown":
      return s.unknownText;
    case "starting":
      return seconds >= 20 ? s.slowStart : s.startingText;
    case "failed":
      return sandbox?.message || s.failedText;
    case "none":
    case "lost": {
      // Reasons we know are said in the person's language; the server speaks English.
      const known = sandbox?.reason ? (s.reasons as Record<string, string>)[sandbox.reason] : undefined;
      if (known) return state === "lost" ? `${known} ${s.lostText}` : known;
      return sandbox?.message || (state === "none" ? s.noneText : s.lostText);
    }
    case "ready":
      return sandbox?.message || s.readyText;
    case "busy":
      return s.busyText;
    case "paused":
      return s.pausedText;
  }
}
