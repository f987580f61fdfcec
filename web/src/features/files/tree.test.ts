import { describe, expect, it } from "vitest";
import type { Entry } from "./api";
import { between, type Folder, flatten, sorted, step, topmost, typeAhead, type View } from "./tree";

function entry(path: string, type: Entry["type"] = "file"): Entry {
  return {
    path,
    name: path.slice(path.lastIndexOf("/") + 1),
    type,
    size_bytes: 1,
    mode: "-rw-r--r--",
    modified_at: "2026-01-01T00:00:00Z",
  };
}
function folder(...entries: Entry[]): Folder {
  return { status: "ready", entries: sorted(entries), truncated: false };
}

const view: View = {
  folders: new Map([
    [
      "/workspace",
      folder(
        entry("/workspace/plot10.png"),
        entry("/workspace/plot2.png"),
        entry("/workspace/data", "directory"),
        entry("/workspace/.cache", "directory"),
      ),
    ],
    ["/workspace/data", folder(entry("/workspace/data/a.csv"), entry("/workspace/data/deep", "directory"))],
    ["/workspace/data/deep", folder(entry("/workspace/data/deep/needle.txt"))],
    ["/uploaded_files", folder()],
  ]),
  expanded: new Set(["/workspace", "/uploaded_files"]),
  filter: "",
  hidden: false,
};
const paths = (v: View) => flatten(v).map((r) => `${r.level} ${r.path}`);

describe("flatten", () => {
  it("shows folders first, names as people count, nothing hidden", () => {
    expect(paths(view)).toEqual([
      "1 /workspace",
      "2 /workspace/data",
      "2 /workspace/plot2.png",
      "2 /workspace/plot10.png",
      "1 /uploaded_files",
    ]);
    expect(flatten(view)[2]).toMatchObject({ position: 2, of: 3 });
    expect(paths({ ...view, hidden: true })).toContain("2 /workspace/.cache");
  });

  it("filters, and opens the way to what matches", () => {
    expect(paths({ ...view, filter: "needle" })).toEqual([
      "1 /workspace",
      "2 /workspace/data",
      "3 /workspace/data/deep",
      "4 /workspace/data/deep/needle.txt",
      "1 /uploaded_files",
    ]);
  });

  it("shows all of a folder that matches itself", () => {
    const expanded = new Set([...view.expanded, "/workspace/data"]);
    expect(paths({ ...view, filter: "data", expanded })).toContain("3 /workspace/data/a.csv");
  });
});

describe("step", () => {
  const rows = flatten({ ...view, expanded: new Set([...view.expanded, "/workspace/data"]) });
  it("moves as in any tree", () => {
    expect(step(rows, "/workspace", "ArrowDown")).toEqual({ go: "/workspace/data" });
    expect(step(rows, "/workspace", "ArrowUp")).toEqual({ go: "/workspace" });
    expect(step(rows, "/workspace/data", "ArrowRight")).toEqual({ go: "/workspace/data/deep" });
    expect(step(rows, "/workspace/data/deep", "ArrowRight")).toEqual({ expand: "/workspace/data/deep" });
    expect(step(rows, "/workspace/data/a.csv", "ArrowLeft")).toEqual({ go: "/workspace/data" });
    expect(step(rows, "/workspace/data", "ArrowLeft")).toEqual({ collapse: "/workspace/data" });
    expect(step(rows, "/uploaded_files", "ArrowRight")).toBeUndefined();
    expect(step(rows, "/workspace", "End")).toEqual({ go: "/uploaded_files" });
    expect(step(rows, "gone", "ArrowDown")).toEqual({ go: "/workspace" });
  });

  it("finds by typing", () => {
    expect(typeAhead(rows, "/workspace", "p")).toBe("/workspace/plot2.png");
    expect(typeAhead(rows, "/workspace/plot2.png", "p")).toBe("/workspace/plot10.png");
    expect(typeAhead(rows, "/workspace/plot2.png", "plot1")).toBe("/workspace/plot10.png");
    expect(typeAhead(rows, "/workspace", "z")).toBeUndefined();
  });

  it("selects ranges, and folders with what they hold as one", () => {
    expect(between(rows, "/workspace/plot2.png", "/workspace/data/a.csv")).toEqual([
      "/workspace/data/a.csv",
      "/workspace/plot2.png",
    ]);
    expect(topmost(["/workspace/data/a.csv", "/workspace/data", "/workspace/x"])).toEqual([
      "/workspace/data",
      "/workspace/x",
    ]);
  });
});
