import type { Connection } from "@/api/events";
import type { SessionSandbox } from "@/api/types";
import type { useStrings } from "./strings";

export type Shown = SessionSandbox["state"] | "unknown";

/** What can be said for sure: with no connection, only what was known last. */
export function shownState(sandbox: SessionSandbox | undefined, connection: Connection): Shown {
  const state = sandbox?.state ?? "none";
  return connection === "offline" ? "unknown" : state;
}

type Strings = ReturnType<typeof useStrings>;

/** A few words for the pill. */
export function label(s: Strings, state: Shown, seconds: number): string {
  return state === "starting" ? s.starting(seconds) : s[state];
}

/** What it means, and what to do. The server's own sentence goes first where it has one. */
export function explanation(s: Strings, state: Shown, sandbox: SessionSandbox | undefined, seconds: number): string {
  switch (state) {
    case "unknown":
      return s.unknownText;
    case "starting":
      return seconds >= 20 ? s.slowStart : s.startingText;
    case "none":
    case "lost": {
      const known = sandbox?.reason ? (s.reasons as Record<string, string>)[sandbox.reason] : undefined;
      const general = state === "none" ? s.noneText : s.lostText;
      return sandbox?.message || (known ? (state === "lost" ? `${known} ${s.lostText}` : known) : general);
    }
    case "ready":
      return sandbox?.message || s.readyText;
    case "busy":
      return s.busyText;
    case "paused":
      return s.pausedText;
  }
}
