import { expect, test } from "vitest";
import { columnWindow, edges, rowHeight, rowWindow, scrollFor } from "./window";

test("rows in sight and some beside", () => {
  const w = rowWindow(1000, 100 * rowHeight, 10 * rowHeight, 2);
  expect([w.first, w.last]).toEqual([98, 112]);
  expect(w.top(100)).toBe(100 * rowHeight);
});

test("a hundred million rows: the end of the bar is the last row", () => {
  const total = 100_000_000;
  const view = 400;
  const { height } = rowWindow(total, 0, view);
  expect(height).toBeLessThan(10_000_000);
  const end = rowWindow(total, height - view, view, 0);
  expect(end.last).toBe(total);
  expect(Math.round(end.top(total - 1) + rowHeight)).toBe(height);
});

test("scrolling to a row that is in sight moves nothing", () => {
  expect(scrollFor(5, 1000, 0, 400)).toBeUndefined();
  expect(scrollFor(500, 1000, 0, 400)).toBe(501 * rowHeight - 400);
  expect(scrollFor(2, 1000, 500, 400)).toBe(2 * rowHeight);
});

test("columns in sight", () => {
  const lefts = edges(Array.from({ length: 50 }, () => 100));
  expect(columnWindow(lefts, 1050, 300)).toEqual([9, 15]);
  expect(columnWindow(edges([]), 0, 300)).toEqual([0, 0]);
});
