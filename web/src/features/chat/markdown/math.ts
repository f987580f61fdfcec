// Models write formulas as \(…\), \[…\], $…$ and $$…$$, and prices with the
// same dollar. This brings the first two into the form that remark-math reads
// and escapes dollars that are no formula, by Pandoc's rule: the opening dollar
// stands before something, the closing one behind something and before no digit.

const code =
  /(^|\n)( {0,3}(`{3,}|~{3,})[^\n]*\n[\s\S]*?(?:\n {0,3}\3[`~]*[ \t]*(?=\n|$)|$))|(`+)(?:[^`]|(?!\4)`)*?\4(?!`)/g;

export function mathSource(text: string): string {
  if (!/[$]|\\[([]/.test(text)) return text;
  let out = "";
  let last = 0;
  for (const found of text.matchAll(code)) {
    out += prose(text.slice(last, found.index)) + found[0];
    last = found.index + found[0].length;
  }
  return out + prose(text.slice(last));
}

function prose(text: string): string {
  return dollars(
    text
      .replace(/\\\[([\s\S]+?)\\\]/g, (_, tex: string) => `\n$$\n${tex.trim()}\n$$\n`)
      .replace(/\\\(([\s\S]+?)\\\)/g, (_, tex: string) => `$${tex.trim()}$`),
  );
}

function dollars(text: string): string {
  let out = "";
  let i = 0;
  while (i < text.length) {
    const c = text[i];
    if (c === "\\" && i + 1 < text.length) {
      out += text.slice(i, i + 2);
      i += 2;
      continue;
    }
    if (c !== "$") {
      out += c;
      i++;
      continue;
    }
    if (text[i + 1] === "$") {
      const end = text.indexOf("$$", i + 2);
      const stop = end < 0 ? text.length : end + 2;
      const body = text.slice(i + 2, end < 0 ? text.length : end);
      // On one line remark-math would read a displayed formula as inline.
      const alone = /(^|\n)\s*$/.test(text.slice(0, i)) && /^\s*(\n|$)/.test(text.slice(stop));
      out += end >= 0 && alone && !body.includes("\n") ? `$$\n${body.trim()}\n$$` : text.slice(i, stop);
      i = stop;
      continue;
    }
    const end = closing(text, i);
    if (end < 0) {
      out += "\\$";
      i++;
    } else {
      out += text.slice(i, end + 1);
      i = end + 1;
    }
  }
  return out;
}

function closing(text: string, open: number): number {
  if (/[\s]|^$/.test(text[open + 1] ?? "")) return -1;
  for (let i = open + 1; i < text.length; i++) {
    const c = text[i] ?? "";
    if (c === "\\") i++;
    else if (c === "\n" && text[i + 1] === "\n") return -1;
    else if (c === "$") {
      if (/\s/.test(text[i - 1] ?? "") || /\d/.test(text[i + 1] ?? "")) return -1;
      return i;
    }
  }
  return -1;
}
