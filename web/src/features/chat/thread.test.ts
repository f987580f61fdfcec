import { describe, expect, it } from "vitest";
import type { Item } from "@/api/types";
import { answerStart, answerText, estimate, keepSections, lastScreen, sections } from "./thread";

function items(...list: (Partial<Item> & { id: string })[]): ReadonlyMap<string, Item> {
  return new Map(
    list.map((item) => [item.id, { kind: "cell", status: "ok", created_at: "", updated_at: "", ...item } as Item]),
  );
}

describe("sections", () => {
  const all = items({ id: "n", kind: "note" }, { id: "u1", kind: "user" }, { id: "c" }, { id: "u2", kind: "user" });
  it("begin with each message", () => {
    expect(sections(["n", "u1", "c", "u2", "gone"], all)).toEqual([
      { id: "", entries: ["n"] },
      { id: "u1", entries: ["u1", "c"] },
      { id: "u2", entries: ["u2"] },
    ]);
  });
  it("stay the same objects where nothing changed", () => {
    const before = sections(["n", "u1", "c", "u2"], all);
    expect(keepSections(before, sections(["n", "u1", "c", "u2"], all))).toBe(before);
    const after = keepSections(before, sections(["n", "u1", "u2"], all));
    expect(after[0]).toBe(before[0]);
    expect(after[1]).not.toBe(before[1]);
    expect(after[2]).toBe(before[2]);
  });
});

describe("answers", () => {
  const all = items(
    { id: "u", kind: "user" },
    { id: "a1", kind: "assistant", turn_id: "t", text: "One." },
    { id: "mine" },
    { id: "c", turn_id: "t" },
    { id: "a2", kind: "assistant", turn_id: "t", text: "Two." },
  );
  const order = [...all.keys()];
  it("are all texts of a turn, and begin with its first item", () => {
    expect(answerText("t", order, all)).toBe("One.\n\nTwo.");
    expect(answerStart(all.get("a2") as Item, order, all).id).toBe("a1");
  });
});

describe("estimate", () => {
  it("grows with what there is to show", () => {
    const [short, long, plot] = items(
      { id: "1", code: "x" },
      { id: "2", code: "x\n".repeat(40) },
      { id: "3", code: "x", outputs: [{ output_type: "display_data", data: { "image/png": "" } }] },
    ).values();
    expect(estimate(long as Item)).toBeGreaterThan(estimate(short as Item) + 700);
    expect(estimate(plot as Item)).toBeGreaterThan(estimate(short as Item) + 300);
  });
});

describe("what a session opens with", () => {
  it("is the entries at the end that fill the window", () => {
    const all = items({ id: "a" }, { id: "b" }, { id: "c" });
    const one = estimate(all.get("a") as Item);
    expect(lastScreen(["a", "b", "c"], all, one + 1)).toEqual(["c", "b"]);
    expect(lastScreen(["a", "b"], all, 10_000)).toEqual(["b", "a"]);
  });
  it("takes printed text by its lines, and long text by the place it scrolls in", () => {
    const printed = (text: string) =>
      estimate(items({ id: "a", outputs: [{ output_type: "stream", text }] }).get("a") as Item);
    expect(printed("1\n2\n3\n") - printed("1\n")).toBe(40);
    expect(printed("1\n".repeat(200_000))).toBe(printed("1\n".repeat(500)));
  });
});
