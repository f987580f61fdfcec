import { describe, expect, test } from "vitest";
import { indexed } from "./style";
import { lineText, Terminal } from "./terminal";

function screen(...chunks: string[]): string[] {
  const terminal = new Terminal();
  for (const chunk of chunks) terminal.feed(chunk);
  return terminal.lines.map(lineText);
}

function runs(text: string) {
  const terminal = new Terminal();
  terminal.feed(text);
  return terminal.lines[0];
}

const esc = "\x1b";

describe("lines", () => {
  test.each([
    ["text", ["a\nb"], ["a", "b"]],
    ["a newline at the end begins a line", ["a\n"], ["a", ""]],
    ["a carriage return writes over", ["100%\rab"], ["ab0%"]],
    ["CRLF is a newline", ["a\r\nb"], ["a", "b"]],
    ["a backspace goes back", ["abc\b\bX"], ["aXc"]],
    ["no further back than the line's begin", ["a\b\b\bX"], ["X"]],
    ["a newline in the middle of a line cuts nothing off", ["abc\rX\nY"], ["Xbc", "Y"]],
    ["erase to the end", [`abc\rX${esc}[K`], ["X"]],
    ["erase the line", [`abc${esc}[2K\rX`], ["X"]],
    ["erase to the begin", [`abcdef\r${esc}[3C${esc}[1K`], ["    ef"]],
    ["up and down", [`one\ntwo${esc}[A\rONE${esc}[B\rTWO`], ["ONE", "TWO"]],
    ["up ends at the first line", [`a${esc}[99A\rb`], ["b"]],
    ["erase below", [`a\nb\nc${esc}[2A\r${esc}[J`], [""]],
    ["clear", [`a\nb${esc}[2J${esc}[Hc`], ["c"]],
    ["a sequence split in the middle", ["a", esc, "[", "1", "Kb"], [" b"]],
    ["an OSC that sets the title", [`${esc}]0;title\x07a`], ["a"]],
    ["an OSC that ends with ST, split", [`${esc}]0;ti`, `tle${esc}`, "\\a"], ["a"]],
    ["a bell and other noise", ["a\x07\x00b"], ["ab"]],
    ["private modes", [`${esc}[?25la${esc}[?25h`], ["a"]],
    ["a pair of surrogates that is half overwritten", ["😀b\rX"], ["X b"]],
    ["delete letters", [`abcdef\r${esc}[2P`], ["cdef"]],
    ["the cursor restored", [`${esc}7abc${esc}8X`], ["Xbc"]],
  ])("%s", (_, chunks, want) => {
    expect(screen(...chunks)).toEqual(want);
  });

  test("tqdm's nested bars take two lines and go away", () => {
    // As tqdm writes them: position 1 by a newline before and a cursor up behind.
    const outer = (n: number) => `\router: ${n}/2`;
    const inner = (n: number) => `\n\rinner: ${n}/3${esc}[A`;
    let text = outer(0);
    for (let i = 1; i <= 2; i++) {
      for (let j = 0; j <= 3; j++) text += inner(j);
      text += outer(i);
    }
    expect(screen(text)).toEqual(["outer: 2/2", "inner: 3/3"]);
    expect(screen(`${text}\n\r          ${esc}[A\r${esc}[A\n`)[0]).toBe("outer: 2/2");
  });

  test("rich redraws a block of lines", () => {
    const draw = (n: number) => `a ${n}\nb ${n}\n`;
    const up = `\r${esc}[2K${esc}[1A${esc}[2K${esc}[1A${esc}[2K`;
    expect(screen(draw(1) + up + draw(2) + up + draw(3))).toEqual(["a 3", "b 3", ""]);
  });

  test("a far column and a far row cost a bounded amount", () => {
    const terminal = new Terminal();
    terminal.feed(`${esc}[999999999Cx${esc}[999999999Bx`);
    expect(terminal.lines.length).toBeLessThan(1000);
    expect(lineText(terminal.lines[0] ?? "").length).toBeLessThan(2 ** 21);
  });

  test("200,000 lines in pieces, in time", () => {
    const terminal = new Terminal();
    const start = performance.now();
    for (let i = 0; i < 2000; i++) {
      terminal.feed(Array.from({ length: 100 }, (_, j) => `line ${i * 100 + j} of many\n`).join(""));
    }
    expect(terminal.lines.length).toBe(200_001);
    expect(performance.now() - start).toBeLessThan(2000);
  });

  test("a long piece with many sequences is read once, not again for each", () => {
    const terminal = new Terminal();
    const start = performance.now();
    terminal.feed(`${esc}[31mred${esc}[0m plain\n`.repeat(100_000));
    expect(terminal.lines.length).toBe(100_001);
    expect(performance.now() - start).toBeLessThan(4000);
  });
});

describe("styles", () => {
  test("16 colours, attributes, reset", () => {
    expect(runs(`a${esc}[1;31mb${esc}[0mc`)).toEqual([
      { text: "a", style: {} },
      { text: "b", style: { fg: 1, bold: true } },
      { text: "c", style: {} },
    ]);
  });
  test.each([
    ["bright", "92;103", { fg: 10, bg: 11 }],
    ["256", "38;5;196;48;5;244", { fg: "#ff0000", bg: "#808080" }],
    ["true colour", "38;2;1;2;3", { fg: "#010203" }],
    ["true colour with colons", "38:2::1:2:3", { fg: "#010203" }],
    ["attributes", "3;4;7;9;2", { dim: true, italic: true, underline: true, strike: true, inverse: true }],
    ["off again", "1;22;31;39", {}],
    ["a colour out of range is none", "38;5;999", {}],
    ["a colour that lacks a part is none", "38;2;1;2", {}],
  ])("%s", (_, parameters, style) => {
    const line = runs(`${esc}[${parameters}mx`);
    expect(line).toEqual(Object.keys(style).length === 0 ? "x" : [{ text: "x", style }]);
  });
  test("styles stay where text is written over", () => {
    expect(runs(`${esc}[31mabcd${esc}[0m\r${esc}[1CX`)).toEqual([
      { text: "a", style: { fg: 1 } },
      { text: "X", style: {} },
      { text: "cd", style: { fg: 1 } },
    ]);
  });
  test("markup in a sequence is text", () => {
    expect(screen(`${esc}[31m<img src=x onerror=alert(1)>`)).toEqual(["<img src=x onerror=alert(1)>"]);
    expect(screen(`${esc}[38;2;1;2;<b>mx`)).toEqual([">mx"]); // b ends the sequence
  });
  test("links: addresses of the web and no others", () => {
    const link = (url: string) => runs(`${esc}]8;;${url}${esc}\\x${esc}]8;;${esc}\\`);
    expect(link("https://example.org/a")).toEqual([{ text: "x", style: { link: "https://example.org/a" } }]);
    expect(link("javascript:alert(1)")).toBe("x");
    expect(link("data:text/html,x")).toBe("x");
  });
  test("the table of 256", () => {
    expect([indexed(9), indexed(16), indexed(231), indexed(232), indexed(256)]).toEqual([
      9,
      "#000000",
      "#ffffff",
      "#080808",
      undefined,
    ]);
  });
});
