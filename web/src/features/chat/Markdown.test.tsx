import { render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { describe, expect, it, vi } from "vitest";
import { Markdown } from "./Markdown";
import { RunCode } from "./markdown/context";

describe("Markdown", () => {
  it("shows no HTML, no script address and no foreign image", () => {
    const { container } = render(
      <Markdown
        text={
          "<script>alert(1)</script>\n\n<img src=x onerror=alert(1)>\n\n[a](javascript:alert(1)) [b](https://b.example) ![c](https://c.example/c.png) ![d](javascript:x)"
        }
      />,
    );
    expect(container.querySelector("script, img, [onerror]")).toBeNull();
    expect([...container.querySelectorAll("a")].map((a) => a.getAttribute("href"))).toEqual([
      "https://b.example/",
      "https://c.example/c.png",
    ]);
    for (const a of container.querySelectorAll("a")) expect(a.rel).toContain("noopener noreferrer");
    expect(screen.getByText(/alert\(1\)<\/script>/)).toBeInTheDocument();
  });

  it("shows tables, task lists and a line break in a cell", () => {
    const { container } = render(<Markdown text={"| a | b |\n|---|--:|\n| x<br>y | 2 |\n\n- [x] done"} />);
    expect(container.querySelectorAll("td")).toHaveLength(2);
    expect(container.querySelector("td br")).not.toBeNull();
    expect(container.querySelector("input")).toBeChecked();
  });

  it("offers quoted Python as a cell, and only that", async () => {
    const run = vi.fn();
    render(
      <RunCode value={run}>
        <Markdown text={"```python\nprint(1)\n```\n\n```sql\nselect 1\n```"} />
      </RunCode>,
    );
    const buttons = screen.getAllByRole("button", { name: "Run as a cell" });
    expect(buttons).toHaveLength(1);
    await userEvent.click(buttons[0] as HTMLElement);
    expect(run).toHaveBeenCalledWith("print(1)");
  });

  it("keeps blocks that are finished while more text streams in", () => {
    const text = Array.from({ length: 12 }, (_, i) => `Paragraph **${i}** with text.`).join("\n\n");
    const { container, rerender } = render(<Markdown text="" streaming />);
    let first: Element | null = null;
    for (let i = 1; i <= text.length; i += 7) {
      rerender(<Markdown text={text.slice(0, i)} streaming />);
      if (i > 200) {
        first ??= container.querySelector("p");
        expect(container.querySelector("p")).toBe(first);
      }
    }
    rerender(<Markdown text={text} />);
    expect(container.querySelectorAll("p")).toHaveLength(12);
    expect(container.querySelector("p")).toBe(first);
    expect(container.querySelectorAll("strong")).toHaveLength(12);
  });
});
