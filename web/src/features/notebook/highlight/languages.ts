// Light colours for the other languages that messages quote: comments, strings,
// numbers and the commonest words. Not a parser, and does not have to be.

import { type LineState, pythonLine, type Token } from "./python";

interface Family {
  line: RegExp; // a comment to the end of the line
  block?: readonly [string, string];
  quotes: string;
  words: ReadonlySet<string>;
}

const words = (text: string) => new Set(text.split(" "));

const cLike: Family = {
  line: /\/\//y,
  block: ["/*", "*/"],
  quotes: "\"'`",
  words: words(
    "abstract as async await bool boolean break case catch chan char class const continue default defer delete do double else enum export " +
      "extends false final finally float fn for from func function go if impl implements import in int interface let long map match mod module " +
      "mut namespace new nil null number of package private protected pub public range return select self short static string struct super " +
      "switch this throw throws trait true try type typeof undefined unsigned use var void where while yield",
  ),
};
const shell: Family = {
  line: /(?<![\w$"'])#/y,
  quotes: "\"'",
  words: words(
    "case do done elif else esac export fi for function if in local return set then until while cd echo sudo",
  ),
};
const sql: Family = {
  line: /--/y,
  block: ["/*", "*/"],
  quotes: "'\"",
  words: words(
    "add all alter and as asc between by case create delete desc distinct drop else end exists from full group having in index inner insert " +
      "into is join key left like limit not null offset on or order outer over partition primary right select set table then union update " +
      "values view when where with",
  ),
};
const data: Family = { line: /#/y, quotes: "\"'", words: words("true false null yes no on off") };
const json: Family = { line: /(?!)/y, quotes: '"', words: words("true false null") };
const markup: Family = { line: /(?!)/y, block: ["<!--", "-->"], quotes: "\"'", words: words("") };

const families: Record<string, Family> = {};
for (const [names, family] of [
  ["js javascript jsx ts typescript tsx go rust rs c cpp c++ h java kotlin swift cs csharp php scala dart", cLike],
  ["sh bash shell zsh console dockerfile makefile r ruby perl", shell],
  ["sql sqlite postgresql mysql", sql],
  ["yaml yml toml ini conf", data],
  ["json json5 jsonl", json],
  ["html xml svg css scss", markup],
] as const) {
  for (const n of names.split(" ")) families[n] = family;
}

const python = new Set(["python", "py", "python3", "ipython", "pycon"]);

export const isPython = (language: string) => python.has(language.toLowerCase());

export type LineReader = (line: string, state: LineState) => { tokens: Token[]; state: LineState };

/** Reads lines of that language; of an unknown one nothing is coloured. */
export function lineReader(language: string): LineReader {
  if (isPython(language)) return pythonLine;
  const family = families[language.toLowerCase()];
  if (!family) return (line) => ({ tokens: [[line, null]], state: "" });
  return (line, state) => familyLine(family, line, state);
}

function familyLine(family: Family, line: string, state: LineState): { tokens: Token[]; state: LineState } {
  const tokens: Token[] = [];
  let at = 0;
  if (state !== "" && family.block) {
    const end = line.indexOf(family.block[1]);
    if (end < 0) return { tokens: [[line, "tok-comment"]], state };
    at = end + family.block[1].length;
    tokens.push([line.slice(0, at), "tok-comment"]);
  }
  const rest = /[A-Za-z_$][\w$-]*|\d[\w.]*|\s+|./gy;
  while (at < line.length) {
    family.line.lastIndex = at;
    if (family.line.test(line)) {
      tokens.push([line.slice(at), "tok-comment"]);
      break;
    }
    if (family.block && line.startsWith(family.block[0], at)) {
      const end = line.indexOf(family.block[1], at + family.block[0].length);
      if (end < 0) {
        tokens.push([line.slice(at), "tok-comment"]);
        return { tokens, state: "comment" };
      }
      tokens.push([line.slice(at, end + family.block[1].length), "tok-comment"]);
      at = end + family.block[1].length;
      continue;
    }
    const c = line[at] ?? "";
    if (family.quotes.includes(c)) {
      let end = at + 1;
      while (end < line.length && line[end] !== c) end += line[end] === "\\" ? 2 : 1;
      const text = line.slice(at, end + 1);
      const key = family === json && /^\s*:/.test(line.slice(end + 1));
      tokens.push([text, key ? "tok-propertyName" : "tok-string"]);
      at += text.length;
      continue;
    }
    rest.lastIndex = at;
    const text = rest.exec(line)?.[0] ?? c;
    const word = family === sql ? text.toLowerCase() : text;
    tokens.push([
      text,
      family.words.has(word)
        ? "tok-keyword"
        : /^\d/.test(text)
          ? "tok-number"
          : /^[A-Za-z_$]/.test(text) && line[at + text.length] === "("
            ? "tok-call"
            : null,
    ]);
    at += text.length;
  }
  return { tokens, state: "" };
}
