import { describe, expect, it } from "vitest";
import { splitBlocks } from "./blocks";
import { mathSource } from "./math";
import { mendBlock } from "./mend";
import { safeImage, safeLink } from "./urls";

describe("splitBlocks", () => {
  const cases: [string, string, string[]][] = [
    ["paragraphs part at blank lines", "a\nb\n\n\nc", ["a\nb", "c"]],
    ["a fence keeps its blank lines", "x\n```py\na\n\nb\n```\ny", ["x", "```py\na\n\nb\n```\ny"]],
    ["an open fence runs to the end", "```\na\n\nb", ["```\na\n\nb"]],
    ["a fence closes with as many marks", "````\n```\n\nx\n````\n\ny", ["````\n```\n\nx\n````", "y"]],
    ["a loose list is one block", "- a\n\n- b\n\n  more\n\nend", ["- a\n\n- b\n\n  more", "end"]],
    ["a formula keeps its blank lines", "$$\na\n\nb\n$$\n\nc", ["$$\na\n\nb\n$$", "c"]],
    ["a heading begins a block", "a\n# b\nc", ["a", "# b\nc"]],
    [
      "definitions come along where they may be used",
      "[x][1]\n\nplain\n\n[1]: http://a",
      ["[x][1]\n\n[1]: http://a", "plain"],
    ],
    [
      "a fence in a list belongs to it",
      "1. a\n   ```py\n   x\n\n   y\n   ```\n2. b",
      ["1. a\n   ```py\n   x\n\n   y\n   ```\n2. b"],
    ],
  ];
  it.each(cases)("%s", (_, text, want) => expect(splitBlocks(text)).toEqual(want));
});

describe("mendBlock", () => {
  const cases: [string, string, string][] = [
    ["closes bold", "a **bo", "a **bo**"],
    ["closes bold and emphasis in order", "**a *b", "**a *b***"],
    ["leaves closed marks alone", "**a** *b*", "**a** *b*"],
    ["holds marks back that have nothing behind them", "a **", "a "],
    ["closes code", "use `np.arr", "use `np.arr`"],
    ["marks in code are none", "`a*b` c", "`a*b` c"],
    ["leaves words_with_underscores alone", "snake_case", "snake_case"],
    ["leaves multiplication alone", "2 * 3", "2 * 3"],
    ["an open link shows its text", "see [the docs](https://exa", "see [the docs](#)"],
    ["an open image waits", "x ![plot](dat", "x "],
    ["a formula waits until it is whole", "so $x^2 + ", "so "],
    ["a price does not", "costs $5", "costs $5"],
    ["a table's head is a table at once", "| a | b", "| a | b |\n| --- | --- |"],
    ["half a delimiter row is mended", "| a | b |\n|--", "| a | b |\n| --- | --- |"],
    ["a row that is written closes its marks", "| a |\n|---|\n| **x", "| a |\n|---|\n| **x**"],
    ["a dash under text is no heading yet", "Title\n-", "Title"],
    ["an empty bullet is no bullet yet", "- a\n- ", "- a"],
    ["an open fence is left alone", "```py\na = '**", "```py\na = '**"],
  ];
  it.each(cases)("%s", (_, text, want) => expect(mendBlock(text)).toBe(want));

  it("never grows without bound or throws, whatever prefix it gets", () => {
    const text =
      "# T\n\n**a *b `c` [d](http://e) ![f](g)** $x$ | y\n\n| a | b |\n|--|:-:|\n| *c | `d` |\n\n- x\n  - **y**\n\n~~z~~ \\*w";
    for (let i = 0; i <= text.length; i++) {
      for (const block of splitBlocks(text.slice(0, i)))
        expect(mendBlock(block).length).toBeLessThan(block.length + 60);
    }
  });
});

describe("mathSource", () => {
  const cases: [string, string, string][] = [
    ["parentheses are inline", "so \\(x^2\\) is", "so $x^2$ is"],
    ["brackets are displayed", "\\[ a+b \\]", "\n$$\na+b\n$$\n"],
    ["prices are no formula", "costs $5 and $10", "costs \\$5 and \\$10"],
    ["a range of prices is none", "$5-$10", "\\$5-\\$10"],
    ["formulas stay", "if $x > 0$ then", "if $x > 0$ then"],
    ["code is left alone", "`$a` and `$b` cost $5", "`$a` and `$b` cost \\$5"],
    ["fences are left alone", "```sh\necho $HOME $PATH\n```", "```sh\necho $HOME $PATH\n```"],
    ["a displayed formula on one line gets its own", "$$a$$", "$$\na\n$$"],
  ];
  it.each(cases)("%s", (_, text, want) => expect(mathSource(text)).toBe(want));
});

describe("safeLink", () => {
  it.each(["https://a.example/b?c", "http://a.example/", "mailto:a@b.example", "#note"])("lets %s be opened", (url) =>
    expect(safeLink(url)).toBe(url),
  );
  it.each([
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\nscript:alert(1)",
    " \u0001javascript:alert(1)",
    "data:text/html,<script>",
    "vbscript:x",
    "file:///etc/passwd",
    "blob:http://a/b",
    "//evil.example",
    "/v1/sessions",
    "v1/sessions",
    "",
    undefined,
  ])("refuses %s", (url) => expect(safeLink(url)).toBeUndefined());
});

describe("safeImage", () => {
  it("shows what comes with the text", () => expect(safeImage("data:image/png;base64,AAAA")).toBeDefined());
  it.each(["https://a/b.png", "data:image/svg+xml;base64,AAAA", "data:text/html,x", "data:image/png,<script>"])(
    "refuses %s",
    (url) => expect(safeImage(url)).toBeUndefined(),
  );
});
