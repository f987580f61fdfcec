import { expect, test } from "vitest";
import { groupFrames, isLibrary, parseTraceback } from "./traceback";

const traceback = [
  "\x1b[31m---------------------------------------------------------------------------\x1b[39m",
  "\x1b[31mKeyError\x1b[39m                                  Traceback (most recent call last)",
  "\x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[1]\x1b[39m\x1b[32m, line 2\x1b[39m\n      1 import pandas\n----> 2 df['x']\n",
  "\x1b[36mFile \x1b[39m\x1b[32m/usr/lib/python3/dist-packages/pandas/core/frame.py:4102\x1b[39m, in \x1b[36mDataFrame.__getitem__\x1b[39m(self, key)\n   4100     return x\n-> 4102 indexer\n",
  "\x1b[36mFile \x1b[39m\x1b[32m~/.venv/lib/python3.13/site-packages/pandas/core/indexes/base.py:3812\x1b[39m, in f(self)\n   3811 a\n",
  "\x1b[36mFile \x1b[39m\x1b[32m/workspace/mine.py:7\x1b[39m, in g()\n      7 h()\n",
  "\x1b[31mKeyError\x1b[39m: 'x'",
];

test("frames of one's own are shown, those of libraries folded", () => {
  const groups = groupFrames(parseTraceback(traceback));
  expect(groups.map((g) => [g.kind, g.parts.length])).toEqual([
    ["shown", 3],
    ["folded", 2],
    ["shown", 2],
  ]);
  expect(groups[1]?.parts.map((p) => p.file)).toEqual([
    "/usr/lib/python3/dist-packages/pandas/core/frame.py",
    "~/.venv/lib/python3.13/site-packages/pandas/core/indexes/base.py",
  ]);
});

test("nothing gets lost", () => {
  const joined = parseTraceback(traceback)
    .map((p) => p.text)
    .join("\n");
  expect(joined.replace(/\n+/g, "\n")).toBe(traceback.join("\n").replace(/\n+/g, "\n"));
});

test("with frames of libraries alone, they are shown", () => {
  const groups = groupFrames(
    parseTraceback(["File /usr/lib/python3.13/json/decoder.py:355, in raw_decode(s)\n  1 x", "E: y"]),
  );
  expect(groups.map((g) => g.kind)).toEqual(["shown"]);
});

test.each([
  ["/workspace/a.py", false],
  ["mine.py", false],
  ["./lib/mine.py", false],
  ["/tmp/x.py", false],
  ["/usr/lib/python3.13/asyncio/runners.py", true],
  ["/opt/conda/x.py", true],
  ["<frozen importlib._bootstrap>", true],
  ["<string>", false],
])("%s", (file, want) => {
  expect(isLibrary(file)).toBe(want);
});

test("a traceback that is none", () => {
  expect(parseTraceback(["<b>boom</b>"])).toEqual([{ kind: "text", text: "<b>boom</b>" }]);
  expect(parseTraceback([])).toEqual([]);
});
