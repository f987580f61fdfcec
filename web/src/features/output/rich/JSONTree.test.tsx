import { render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { Tooltip } from "radix-ui";
import { expect, test } from "vitest";
import type { Json } from "@/api/types";
import { JSONTree, openDepth, step, summary } from "./JSONTree";

function show(value: Json) {
  return render(
    <Tooltip.Provider>
      <JSONTree value={value} />
    </Tooltip.Provider>,
  );
}

test("what fits is open, what is large is closed", () => {
  expect(openDepth({ a: { b: { c: 1 } } })).toBe(3);
  expect(openDepth({ a: Array.from({ length: 1000 }, (_, i) => i) })).toBe(1);
  expect(openDepth(5)).toBe(1);
});

test("a closed branch tells its first entries", () => {
  expect(summary({ a: 1, b: "x", c: [1] })).toBe('{a: 1, b: "x", c: […]}');
  expect(summary([1, { a: 1 }])).toBe("[1, {…}]");
  expect(summary(Array.from({ length: 100 }, () => "text")).endsWith(", …]")).toBe(true);
});

test("a long list comes in steps", async () => {
  const { container } = show(Array.from({ length: 1000 }, (_, i) => i));
  expect(container.querySelectorAll(".pl-4\\.5").length).toBe(step);
  await userEvent.click(screen.getByRole("button", { name: /300/ }));
  expect(container.querySelectorAll(".pl-4\\.5").length).toBe(step * 4);
});

test("keys and texts are text, whatever is in them", () => {
  const { container } = show({
    '<img src=x onerror="alert(1)">': "<script>alert(1)</script>",
    __proto__: null,
  } as Json);
  expect(container.querySelector("img, script")).toBeNull();
  expect(container.textContent).toContain("<script>alert(1)</script>");
});
