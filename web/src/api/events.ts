import { EventSourceParserStream } from "eventsource-parser/stream";
import { errorOf, signInAgain } from "./client";
import type { SessionEvent } from "./types";

export type Connection = "connecting" | "open" | "offline";

export interface FollowOptions {
  /** The stream's address; ?after= is added. */
  url: string;
  /** Number of the last event that is known. */
  after: number;
  /** Events that arrived together, in order. */
  onEvents: (events: SessionEvent[]) => void;
  /** The server no longer has what comes next: load the whole and follow from there. */
  onGap: () => void;
  /** The sessions' list changed. */
  onSessions?: () => void;
  onState: (state: Connection) => void;
  /** The server refuses for good (deleted, no token). */
  onRefused: (err: Error) => void;
  /** For tests. */
  fetch?: typeof fetch;
  random?: () => number;
}

// The server writes at least a comment every 15 s; a stream that is silent for
// longer is dead, though the network has not told us yet.
const silence = 25_000;
// A page nobody looks at gives its connection back: browsers allow six to one
// server, and many tabs would use them up.
const hiddenFor = 60_000;
const firstWait = 250;
const longestWait = 5_000;

/**
 * Follows a stream of events for as long as it is not closed: comes back after
 * a break where it was, with growing pauses in between.
 */
export function follow(options: FollowOptions): { close: () => void; retry: () => void } {
  const random = options.random ?? Math.random;
  let last = options.after;
  let failures = 0;
  let closed = false;
  let paused = false;
  let abort: AbortController | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let hiddenTimer: ReturnType<typeof setTimeout> | undefined;

  const connect = async () => {
    clearTimeout(timer);
    if (closed || paused) return;
    const mine = new AbortController();
    abort = mine;
    let watchdog: ReturnType<typeof setTimeout> | undefined;
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => mine.abort(), silence);
    };
    options.onState(failures > 1 ? "offline" : "connecting");
    try {
      alive();
      const url = `${options.url}${options.url.includes("?") ? "&" : "?"}after=${last}`;
      const response = await (options.fetch ?? fetch)(url, {
        headers: { Accept: "text/event-stream", ...(last > 0 ? { "Last-Event-ID": String(last) } : {}) },
        signal: mine.signal,
        credentials: "same-origin",
        cache: "no-store",
      });
      if (!response.ok || !response.body) {
        const err = await errorOf(response);
        clearTimeout(watchdog);
        if (await signInAgain(err, mine.signal)) throw err; // and comes back
        if (response.status >= 400 && response.status < 500 && response.status !== 429 && response.status !== 408) {
          closed = true;
          options.onRefused(err);
          return;
        }
        throw err;
      }
      failures = 0;
      options.onState("open");
      await read(response.body, alive);
    } catch {
      // The reason does not matter: it ended, and we come back.
    } finally {
      clearTimeout(watchdog);
    }
    if (closed || paused || abort !== mine) return;
    failures++;
    if (failures > 1) options.onState("offline");
    // Half fixed, half by chance, so that many pages don't come back at once.
    const wait = Math.min(longestWait, firstWait * 2 ** (failures - 1));
    timer = setTimeout(connect, wait / 2 + (wait / 2) * random());
  };

  const read = async (body: ReadableStream<Uint8Array>, alive: () => void) => {
    const reader = body
      .pipeThrough(
        new TransformStream<Uint8Array, Uint8Array>({
          transform(bytes, controller) {
            alive(); // comments count, which the parser swallows
            controller.enqueue(bytes);
          },
        }),
      )
      .pipeThrough(new TextDecoderStream() as unknown as TransformStream<Uint8Array, string>)
      .pipeThrough(new EventSourceParserStream())
      .getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      if (value.event === "stream.gap") {
        await reader.cancel();
        closed = true;
        options.onGap();
        return;
      }
      if (value.event === "sessions.changed") options.onSessions?.();
      if (!value.id) continue; // a word to us, no event of the log
      const event = JSON.parse(value.data) as SessionEvent;
      if (event.seq <= last) continue;
      last = event.seq;
      options.onEvents([event]);
    }
  };

  const retry = () => {
    if (closed || paused) return;
    failures = 0;
    abort?.abort();
    void connect();
  };
  const visibility = () => {
    clearTimeout(hiddenTimer);
    if (document.hidden) {
      hiddenTimer = setTimeout(() => {
        paused = true;
        abort?.abort();
      }, hiddenFor);
    } else if (paused) {
      paused = false;
      retry();
    }
  };
  document.addEventListener("visibilitychange", visibility);
  window.addEventListener("online", retry);
  void connect();

  return {
    retry,
    close() {
      closed = true;
      clearTimeout(timer);
      clearTimeout(hiddenTimer);
      document.removeEventListener("visibilitychange", visibility);
      window.removeEventListener("online", retry);
      abort?.abort();
    },
  };
}
