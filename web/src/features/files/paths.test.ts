import { describe, expect, it } from "vitest";
import { collect } from "./collect";
import { extension, freeName, join, parent, safeName, safeRelative, within } from "./paths";

describe("paths", () => {
  it("makes one harmless segment of any name", () => {
    expect(safeName("data.csv")).toBe("data.csv");
    expect(safeName("../../etc/passwd")).toBe(".._.._etc_passwd");
    expect(safeName("a\nb\u0000c\u202egpj.exe")).toBe("a_b_cgpj.exe");
    expect(safeName("..")).toBe("file");
    expect(safeName("  ")).toBe("file");
    expect(safeName("e\u0301.txt")).toBe("\u00e9.txt");
    const long = safeName(`${"ä".repeat(300)}.csv`);
    expect(new TextEncoder().encode(long).length).toBeLessThanOrEqual(255);
    expect(long.endsWith(".csv")).toBe(true);
  });

  it("never leaves the folder that was dropped", () => {
    expect(safeRelative("../up/../../x.csv")).toBe("up/x.csv");
    expect(safeRelative("/abs\\win\\y.csv")).toBe("abs/win/y.csv");
    expect(safeRelative("..")).toBe("file");
  });

  it("finds a free name before the extension", () => {
    const taken = new Set(["a-2.csv"]);
    expect(freeName("a.csv", (n) => taken.has(n))).toBe("a-3.csv");
    expect(freeName("b.tar.gz", () => false)).toBe("b-2.tar.gz");
    expect(freeName(".env", () => false)).toBe(".env-2");
    expect(freeName("Makefile", () => false)).toBe("Makefile-2");
  });

  it("takes paths apart", () => {
    expect(parent("/workspace/a/b.csv")).toBe("/workspace/a");
    expect(parent("/workspace")).toBe("/");
    expect(join("/workspace/", "a")).toBe("/workspace/a");
    expect(extension("/x/Data.CSV")).toBe("csv");
    expect(extension("/x/.env")).toBe("");
    expect(within("/workspace/a", "/workspace")).toBe(true);
    expect(within("/workspace2/a", "/workspace")).toBe(false);
  });
});

/** A dropped entry as browsers give it: a folder's content in portions. */
function folder(name: string, children: unknown[], portion = 2): unknown {
  return {
    isFile: false,
    isDirectory: true,
    name,
    createReader() {
      let at = 0;
      return {
        readEntries(done: (some: unknown[]) => void) {
          const some = children.slice(at, at + portion);
          at += portion;
          setTimeout(() => done(some));
        },
      };
    },
  };
}
const leaf = (name: string) => ({
  isFile: true,
  isDirectory: false,
  name,
  file: (done: (f: File) => void) => done(new File(["x"], name)),
});

describe("collect", () => {
  it("walks dropped folders to the end and keeps empty ones", async () => {
    const tree = folder("data", [
      leaf("1.csv"),
      leaf("2.csv"),
      leaf("3.csv"),
      folder("deep", [leaf("..")]),
      folder("empty", []),
    ]);
    const items = [
      { kind: "file", webkitGetAsEntry: () => tree, getAsFile: () => null },
      { kind: "string", webkitGetAsEntry: () => null, getAsFile: () => null },
      { kind: "file", webkitGetAsEntry: () => leaf("one.txt"), getAsFile: () => new File(["x"], "one.txt") },
    ];
    const list = { ...items, [Symbol.iterator]: () => items[Symbol.iterator]() };
    const got = await collect(list as unknown as DataTransferItemList);
    expect(got.files.map((f) => f.relative)).toEqual([
      "one.txt",
      "data/1.csv",
      "data/2.csv",
      "data/3.csv",
      "data/deep",
    ]);
    expect(got.folders).toEqual(["data/empty"]);
  });

  it("takes what a folder input says", async () => {
    const f = new File(["x"], "b.csv");
    Object.defineProperty(f, "webkitRelativePath", { value: "set/a/b.csv" });
    expect((await collect([f])).files[0]?.relative).toBe("set/a/b.csv");
  });
});
