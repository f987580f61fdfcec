// A small Python tokenizer, line by line, for code that is not being edited and
// for code that streams in: each line depends only on its text and on how the
// line before ended, so that what is unchanged is neither read nor drawn again.
// Class names are those of the editor's highlighter, see ./classes.ts.

export type Token = readonly [text: string, style: string | null];

/** How a line ended: "" or what an open string needs, such as `f"""`, or `\"` for a continued line. */
export type LineState = string;

const keywords = new Set(
  (
    "and as assert async await break case class continue def del elif else except finally for from global if import in is " +
    "lambda match nonlocal not or pass raise return try type while with yield None"
  ).split(" "),
);
// Soft keywords are names elsewhere.
const soft = new Set(["match", "case", "type"]);
const bools = new Set(["True", "False"]);

const name = /[\p{L}_][\p{L}\p{N}_]*/uy;
const number =
  /(?:0[xX][\da-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d[\d_]*)?[jJ]?)/y;
const stringStart = /([rbfuRBFUtT]{0,2})('''|"""|'|")/y;
const operator = /[+\-*/%@<>=!&|^~:]+/y;
const punctuation = /[()[\]{},.;]/y;
const space = /\s+/y;

function match(re: RegExp, text: string, at: number): RegExpExecArray | null {
  re.lastIndex = at;
  return re.exec(text);
}

export function pythonLine(line: string, state: LineState): { tokens: Token[]; state: LineState } {
  const tokens: Token[] = [];
  let at = 0;
  let next: LineState = "";
  if (state !== "") {
    const end = stringBody(line, 0, state, tokens);
    at = end.at;
    if (end.open) return { tokens, state };
  }
  const trimmed = line.trimStart();
  if (state === "" && /^[!%]/.test(trimmed)) return { tokens: [[line, "tok-meta"]], state: "" };
  let previous = ""; // the last word or mark
  while (at < line.length) {
    const blank = match(space, line, at);
    if (blank) {
      tokens.push([blank[0], null]);
      at += blank[0].length;
      continue;
    }
    if (line[at] === "#") {
      tokens.push([line.slice(at), "tok-comment"]);
      break;
    }
    const start = match(stringStart, line, at);
    if (start) {
      const opened = (/[fFtT]/.test(start[1] ?? "") ? "f" : "") + (/[rR]/.test(start[1] ?? "") ? "r" : "") + start[2];
      tokens.push([start[0], style(opened)]);
      const end = stringBody(line, at + start[0].length, opened, tokens);
      at = end.at;
      if (end.open && /'''|"""/.test(opened)) next = opened;
      previous = '"';
      continue;
    }
    const word = match(name, line, at);
    if (word) {
      const text = word[0];
      const rest = line.slice(at + text.length);
      tokens.push([text, wordStyle(text, previous, rest)]);
      previous = text;
      at += text.length;
      continue;
    }
    const digits = match(number, line, at);
    if (digits?.[0]) {
      tokens.push([digits[0], "tok-number"]);
      previous = "0";
      at += digits[0].length;
      continue;
    }
    const mark = match(punctuation, line, at);
    if (mark) {
      tokens.push([mark[0], "tok-punctuation"]);
      previous = mark[0];
      at++;
      continue;
    }
    const op = match(operator, line, at);
    if (op) {
      const decorator = op[0] === "@" && trimmed.startsWith("@") && line.slice(0, at).trim() === "";
      tokens.push([op[0], decorator ? "tok-meta" : op[0] === ":" ? "tok-punctuation" : "tok-operator"]);
      previous = decorator ? "@decorator" : op[0];
      at += op[0].length;
      continue;
    }
    tokens.push([line[at] ?? "", null]);
    at++;
  }
  return { tokens, state: next };
}

function wordStyle(text: string, previous: string, rest: string): string | null {
  if (previous === ".") return /^\s*\(/.test(rest) ? "tok-call" : "tok-propertyName";
  if (previous === "def") return "tok-definition";
  if (previous === "class") return "tok-className";
  if (previous === "@decorator") return "tok-meta";
  if (bools.has(text)) return "tok-bool";
  if (keywords.has(text) && (!soft.has(text) || (previous === "" && /^\s+[^\s=.,)\]:(]/.test(rest))))
    return "tok-keyword";
  return /^\(/.test(rest) ? "tok-call" : "tok-variableName";
}

const style = (opened: string) => (opened.startsWith("f") ? "tok-string2" : "tok-string");

// Reads the inside of a string up to its end; expressions of f-strings are code.
function stringBody(line: string, from: number, opened: LineState, tokens: Token[]): { at: number; open: boolean } {
  const formatted = opened.startsWith("f");
  const quote = opened.replace(/^[fr]+/, "");
  let at = from;
  let begin = from;
  const flush = (to: number) => {
    if (to > begin) tokens.push([line.slice(begin, to), style(opened)]);
    begin = to;
  };
  while (at < line.length) {
    if (line[at] === "\\") {
      at += 2;
      continue;
    }
    if (line.startsWith(quote, at)) {
      flush(at + quote.length);
      return { at: at + quote.length, open: false };
    }
    if (formatted && line[at] === "{") {
      if (line[at + 1] === "{") {
        at += 2;
        continue;
      }
      let depth = 0;
      let end = at;
      for (; end < line.length; end++) {
        if (line[end] === "{") depth++;
        else if (line[end] === "}" && --depth === 0) break;
      }
      if (end < line.length) {
        flush(at);
        tokens.push(["{", "tok-punctuation"], ...pythonLine(line.slice(at + 1, end), "").tokens, [
          "}",
          "tok-punctuation",
        ]);
        at = end + 1;
        begin = at;
        continue;
      }
    }
    at++;
  }
  flush(line.length);
  return { at: line.length, open: true };
}
