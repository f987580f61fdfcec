import { describe, expect, it } from "vitest";
import { lineReader } from "./languages";
import { pythonLine, type Token } from "./python";
import { readLines } from "./StaticCode";

function colours(code: string, language = "python"): Token[] {
  return readLines(code, lineReader(language), []).flatMap((line) => line.tokens.filter(([, style]) => style !== null));
}

describe("Python in colours", () => {
  it("loses no character", () => {
    const code =
      'def f(x: int = 3) -> str:\n    """Doc\n    more"""\n    return f"{x!r:>{w}} \\" {{}}" + \'a\' # ende\n@dec\nclass Ä: ...\n!pip install x\n\t\u00a0é';
    expect(
      readLines(code, pythonLine, [])
        .map((line) => line.tokens.map(([text]) => text).join(""))
        .join("\n"),
    ).toBe(code);
  });

  it("knows definitions, calls, strings over lines and expressions in them", () => {
    const found = colours('def f():\n  s = """a\nb""" + g(1)\n  f"x{y}"');
    const styles = Object.fromEntries(found.map(([text, style]) => [text, style]));
    expect(styles).toMatchObject({
      def: "tok-keyword",
      f: "tok-definition",
      g: "tok-call",
      "1": "tok-number",
      y: "tok-variableName",
    });
    expect(found.filter(([, s]) => s === "tok-string").map(([t]) => t)).toEqual(['"""', "a", 'b"""']);
  });

  it("takes soft keywords for names where they are", () => {
    expect(colours("match = 1")[0]).toEqual(["match", "tok-variableName"]);
    expect(colours("match x:")[0]).toEqual(["match", "tok-keyword"]);
  });

  it("reads only what changed while code streams in", () => {
    const code = Array.from({ length: 50 }, (_, i) => `x${i} = "a" + str(${i})`).join("\n");
    let read = 0;
    const count = (line: string, state: string) => {
      read++;
      return pythonLine(line, state);
    };
    let lines = readLines("", count, []);
    for (let i = 1; i <= code.length; i++) lines = readLines(code.slice(0, i), count, lines);
    expect(read).toBeLessThanOrEqual(code.length + 2);
    const before = lines;
    lines = readLines(`${code}\n# more`, count, lines);
    expect(lines.slice(0, 50).every((line, i) => line === before[i])).toBe(true);
  });
});

describe("other languages", () => {
  it("colours JSON keys, SQL in any case and C comments over lines", () => {
    expect(colours('{"a": "b"}', "json").map(([, s]) => s)).toEqual(["tok-propertyName", "tok-string"]);
    expect(colours("SELECT x FROM t", "sql").map(([t]) => t)).toEqual(["SELECT", "FROM"]);
    expect(colours("/* a\nb */ let x", "ts").map(([t]) => t)).toEqual(["/* a", "b */", "let"]);
  });
});
