import { expect, it } from "vitest";
import { Chunks } from "./chunks";

it("grows as a value: older versions read as before", () => {
  const a = Chunks.of("a");
  const ab = a.append("b");
  const ac = a.append("c");
  const abd = ab.append("d");
  expect([a, ab, ac, abd].map(String)).toEqual(["a", "ab", "ac", "abd"]);
  expect(abd.from(1)).toEqual(["b", "d"]);
  expect(abd.length).toBe(3);
  expect(abd.continues(ab)).toBe(true);
  expect(ac.continues(ab)).toBe(false);
  expect(Chunks.empty.append("x").toString()).toBe("x");
  expect(Chunks.empty.append("y").toString()).toBe("y");
  expect(a.append("")).toBe(a);
});
