import type { Connection } from "@/api/events";
import type { SessionSandbox } from "@/api/types";
import { formatBytes } from "@/lib/format";
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

/** On the way to sleep, asleep, or on the way back. */
export function sleeps(state: Shown): boolean {
  return state === "pausing" || state === "paused" || state === "resuming";
}

/** A few words for the pill. since: when it fell asleep, if that is known. */
export function label(s: Strings, state: Shown, seconds: number, since = ""): string {
  switch (state) {
    case "starting":
      return s.starting(seconds);
    case "resuming":
      return s.resuming(seconds);
    case "paused":
      return since === "" ? s.paused : s.pausedSince(since);
  }
  return s[state];
}

/** Since when it sleeps and what that takes on disk. */
export function asleep(s: Strings, since: string, bytes: number | undefined): string {
  return bytes ? s.pausedSize(label(s, "paused", 0, since), formatBytes(bytes)) : label(s, "paused", 0, since);
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
    case "ready": {
      const woke = sandbox?.reason ? (s.woke as Record<string, string>)[sandbox.reason] : undefined;
      return woke ? s.wokeEmpty(woke) : sandbox?.message || s.readyText;
    }
    case "pausing":
      return s.pausingText;
    case "resuming":
      return s.resumingText;
    case "busy":
      return s.busyText;
    case "paused":
      return s.pausedText;
  }
}
