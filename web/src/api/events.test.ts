import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { type Connection, follow } from "./events";
import type { SessionEvent } from "./types";

/** A server whose streams the test writes. */
function server() {
  const requests: {
    url: string;
    headers: Record<string, string>;
    write: (text: string) => void;
    end: () => void;
    cut: () => void;
  }[] = [];
  let answer: (() => Response) | null = null;
  const fetch = vi.fn(async (url: string, init: RequestInit) => {
    if (answer) return answer();
    let controller!: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({
      start(c) {
        controller = c;
      },
    });
    init.signal?.addEventListener("abort", () => {
      try {
        controller.error(new DOMException("aborted", "AbortError"));
      } catch {
        // It had ended.
      }
    });
    requests.push({
      url,
      headers: init.headers as Record<string, string>,
      write: (text) => controller.enqueue(new TextEncoder().encode(text)),
      end: () => controller.close(),
      cut: () => controller.error(new TypeError("network error")),
    });
    return new Response(body, { status: 200 });
  });
  return {
    requests,
    fetch: fetch as unknown as typeof globalThis.fetch,
    calls: fetch,
    refuse: (make: (() => Response) | null) => {
      answer = make;
    },
  };
}

const line = (seq: number) =>
  `id: ${seq}\nevent: item.delta\ndata: ${JSON.stringify({ seq, time: "", type: "item.delta", data: {} })}\n\n`;

function start(after = 0, extra = {}) {
  const s = server();
  const seen: number[] = [];
  const states: Connection[] = [];
  const gap = vi.fn();
  const refused = vi.fn();
  const sessions = vi.fn();
  const stream = follow({
    url: "/v1/sessions/ses_1/events",
    after,
    onEvents: (events: SessionEvent[]) => seen.push(...events.map((e) => e.seq)),
    onGap: gap,
    onRefused: refused,
    onSessions: sessions,
    onState: (state) => states.push(state),
    fetch: s.fetch,
    random: () => 0.5,
    ...extra,
  });
  open.push(stream);
  return { ...s, seen, states, gap, refused, sessions, stream };
}

const open: { close: () => void }[] = [];
const settle = () => vi.advanceTimersByTimeAsync(0);

function hide(hidden: boolean) {
  Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  for (const stream of open.splice(0)) stream.close();
  hide(false);
  vi.useRealTimers();
});

it("gives events in order, however the network cuts them", async () => {
  const t = start();
  await settle();
  const text = line(1) + line(2);
  for (const letter of text) t.requests[0]?.write(letter);
  await settle();
  expect(t.seen).toEqual([1, 2]);
  expect(t.states).toEqual(["connecting", "open"]);
});

it("comes back after a cut where it was, and takes nothing twice", async () => {
  const t = start(5);
  await settle();
  expect(t.requests[0]?.url).toBe("/v1/sessions/ses_1/events?after=5");
  t.requests[0]?.write(line(6) + line(7));
  await settle();
  t.requests[0]?.cut();
  await settle();
  expect(t.requests).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(250);
  expect(t.requests).toHaveLength(2);
  expect(t.requests[1]?.url).toContain("after=7");
  expect(t.requests[1]?.headers["Last-Event-ID"]).toBe("7");
  t.requests[1]?.write(line(7) + line(8));
  await settle();
  expect(t.seen).toEqual([6, 7, 8]);
});

it("waits longer each time the server is away, and says so", async () => {
  const t = start();
  await settle();
  t.refuse(() => new Response("bad gateway", { status: 502 }));
  t.requests[0]?.cut();
  await vi.advanceTimersByTimeAsync(250);
  const early = t.calls.mock.calls.length;
  expect(t.states.at(-1)).toBe("offline");
  await vi.advanceTimersByTimeAsync(60_000);
  const tries = t.calls.mock.calls.length - early;
  expect(tries).toBeGreaterThan(4);
  expect(tries).toBeLessThan(20);
  t.refuse(null);
  t.stream.retry();
  await settle();
  expect(t.states.at(-1)).toBe("open");
});

it("takes a silent stream for a dead one, but not while comments come", async () => {
  const t = start();
  await settle();
  for (let i = 0; i < 4; i++) {
    await vi.advanceTimersByTimeAsync(15_000);
    t.requests[0]?.write(": still here\n\n");
  }
  expect(t.requests).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(26_000);
  expect(t.requests).toHaveLength(2);
});

it("lets the connection go while nobody looks, and resumes at once", async () => {
  const t = start();
  await settle();
  t.requests[0]?.write(line(1));
  await settle();
  hide(true);
  await vi.advanceTimersByTimeAsync(20_000);
  t.requests[0]?.write(line(2));
  await vi.advanceTimersByTimeAsync(20_000);
  t.requests[0]?.write(": still here\n\n");
  await vi.advanceTimersByTimeAsync(20_000);
  expect(t.requests).toHaveLength(1); // closed, and not asked for again
  await vi.advanceTimersByTimeAsync(120_000);
  expect(t.requests).toHaveLength(1);
  hide(false);
  await settle();
  expect(t.requests[1]?.url).toContain("after=2");
});

it("stays open for who comes back soon", async () => {
  const t = start();
  await settle();
  hide(true);
  await vi.advanceTimersByTimeAsync(20_000);
  hide(false);
  t.requests[0]?.write(": still here\n\n");
  await vi.advanceTimersByTimeAsync(20_000);
  t.requests[0]?.write(": still here\n\n");
  await vi.advanceTimersByTimeAsync(20_000);
  expect(t.requests).toHaveLength(1);
});

it("asks for the whole when events are gone", async () => {
  const t = start(3);
  await settle();
  t.requests[0]?.write('event: stream.gap\ndata: {"oldest":90}\n\n');
  await settle();
  expect(t.gap).toHaveBeenCalledTimes(1);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(t.requests).toHaveLength(1);
});

it("passes on that the list of sessions changed, which has no number", async () => {
  const t = start();
  await settle();
  t.requests[0]?.write('event: sessions.changed\ndata: {"type":"sessions.changed","data":{}}\n\n');
  await settle();
  expect(t.sessions).toHaveBeenCalledTimes(1);
  expect(t.seen).toEqual([]);
});

it("gives up when the server refuses for good", async () => {
  const t = start();
  t.refuse(
    () =>
      new Response(JSON.stringify({ code: "session-not-found", detail: "There is no such session." }), { status: 404 }),
  );
  t.stream.retry();
  await settle();
  expect(t.refused.mock.calls[0]?.[0]).toMatchObject({ status: 404, code: "session-not-found" });
  const calls = t.calls.mock.calls.length;
  await vi.advanceTimersByTimeAsync(60_000);
  expect(t.calls.mock.calls.length).toBe(calls);
});
