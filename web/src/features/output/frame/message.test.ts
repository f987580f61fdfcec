import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { HeightGate, hostOf, linkTarget, maxHeight, parseMessage } from "./message";

describe("messages of a frame", () => {
  test.each([
    ["nothing", null],
    ["text", "height"],
    ["an unknown type", { type: "token" }],
    ["a height that is text", { type: "height", height: "100vh" }],
    ["a height that is none", { type: "height", height: Number.NaN }],
    ["a snapshot without number", { type: "snapshot", png: new ArrayBuffer(9) }],
  ])("%s is ignored", (_, data) => {
    expect(parseMessage(data)).toBeUndefined();
  });

  test("heights are bounded", () => {
    expect(parseMessage({ type: "height", height: 1e12 })).toEqual({ type: "height", height: maxHeight });
    expect(parseMessage({ type: "height", height: -5 })).toEqual({ type: "height", height: 0 });
    expect(parseMessage({ type: "height", height: Number.POSITIVE_INFINITY })).toBeUndefined();
  });

  test("texts are cut, other values become empty", () => {
    expect(parseMessage({ type: "failed", message: "x".repeat(9999) })).toEqual({
      type: "failed",
      message: "x".repeat(300),
    });
    expect(parseMessage({ type: "blocked", directive: {}, what: 7 })).toEqual({
      type: "blocked",
      directive: "",
      what: "",
    });
  });

  test("a snapshot has to be a PNG", () => {
    const png = new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0]).buffer;
    expect(parseMessage({ type: "snapshot", id: 1, png })).toEqual({ type: "snapshot", id: 1, png });
    const html = new TextEncoder().encode("<script>alert(1)</script>").buffer;
    expect(parseMessage({ type: "snapshot", id: 1, png: html })).toEqual({ type: "snapshot", id: 1, png: null });
  });
});

test.each([
  ["https://example.org/a?b#c", "https://example.org/a?b#c"],
  ["mailto:a@example.org", "mailto:a@example.org"],
  ["javascript:alert(1)", undefined],
  [" javascript:alert(1)", undefined],
  ["data:text/html,x", undefined],
  ["blob:http://localhost/x", undefined],
  ["file:///etc/passwd", undefined],
  ["https://bank.example@evil.example/", undefined],
  ["/v1/sessions", undefined],
  [`${location.origin}/v1/sessions`, undefined],
  ["", undefined],
])("a link to %s", (href, want) => {
  expect(linkTarget(href)).toBe(want);
});

test("whom an address belongs to", () => {
  expect(hostOf("https://cdn.example.org/x.js")).toBe("cdn.example.org");
  expect(hostOf("data:text/html,x")).toBe("data");
  expect(hostOf("inline")).toBe("inline");
});

describe("heights", () => {
  beforeEach(() => vi.useFakeTimers());
  afterEach(() => vi.useRealTimers());

  test("the first at once, the last of a burst later, none twice", () => {
    const seen: number[] = [];
    const gate = new HeightGate((h) => seen.push(h), { every: 100 });
    for (const h of [10, 20, 30, 30]) gate.offer(h);
    expect(seen).toEqual([10]);
    vi.advanceTimersByTime(100);
    expect(seen).toEqual([10, 30]);
    gate.offer(30);
    vi.advanceTimersByTime(1000);
    expect(seen).toEqual([10, 30]);
  });

  test("one that never rests is heard a bounded number of times", () => {
    const seen: number[] = [];
    const gate = new HeightGate((h) => seen.push(h), { every: 10, most: 5, within: 10_000 });
    for (let i = 0; i < 900; i++) {
      gate.offer(i);
      vi.advanceTimersByTime(10);
    }
    expect(seen.length).toBe(5);
    vi.advanceTimersByTime(10_000);
    expect(seen.at(-1)).toBe(899);
  });
});
