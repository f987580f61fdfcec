import { expect, test, vi } from "vitest";
import type { FromFrame, Theme, ToFrame } from "../../../../frame/protocol";
import { Frame } from "./host";

/** A frame whose document is played by the test. */
function played(left: () => void) {
  const ignore = () => undefined;
  const frame = new Frame(document.body, "output", {} as Theme, {
    rendered: ignore,
    height: ignore,
    blocked: ignore,
    link: ignore,
    failed: ignore,
    left,
    focusTaken: ignore,
    stuck: ignore,
  });
  const inside: { port?: MessagePort; pings: number[] } = { pings: [] };
  Object.defineProperty(frame.element, "contentWindow", {
    value: {
      postMessage: (_hello: unknown, _to: string, ports: MessagePort[]) => {
        const port = ports[0] as MessagePort;
        port.onmessage = (event: MessageEvent<ToFrame>) => {
          if (event.data.type === "ping") inside.pings.push(event.data.load);
        };
        inside.port = port;
      },
    },
  });
  return {
    inside,
    load: () => frame.element.dispatchEvent(new Event("load")),
    tell: (message: FromFrame) => inside.port?.postMessage(message),
    close: () => {
      inside.port?.close();
      frame.close();
    },
  };
}

// The output is written, which is a load, and goes elsewhere before the answer to that is read.
test("an answer from before does not speak for the document that came after", async () => {
  const left = vi.fn();
  const frame = played(left);
  frame.load();
  frame.load();
  frame.load();
  await vi.waitUntil(() => frame.inside.pings.length === 2);
  frame.tell({ type: "pong", load: frame.inside.pings[0] as number });
  await vi.waitUntil(() => left.mock.calls.length === 1, 10_000);
  frame.close();
});

test("a document that answers stays", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const left = vi.fn();
  const frame = played(left);
  frame.load();
  frame.load();
  await vi.waitUntil(() => frame.inside.pings.length === 1);
  const clear = vi.spyOn(globalThis, "clearTimeout");
  frame.tell({ type: "pong", load: frame.inside.pings[0] as number });
  await vi.waitUntil(() => clear.mock.calls.length > 0);
  vi.advanceTimersByTime(60_000);
  expect(left).not.toHaveBeenCalled();
  frame.close();
  clear.mockRestore();
  vi.useRealTimers();
});
