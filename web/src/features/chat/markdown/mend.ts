// Makes sense of a block whose end has not arrived yet: what is open is closed,
// what would look wrong for a moment is held back.

const fenceLine = /^ {0,3}(?:`{3,}|~{3,})/;

function fenceIsOpen(block: string): boolean {
  let open = "";
  for (const line of block.split("\n")) {
    const found = /^\s*(`{3,}|~{3,})(.*)$/.exec(line);
    if (!found?.[1]) continue;
    if (open === "") open = found[1];
    else if (found[1].startsWith(open) && found[2]?.trim() === "") open = "";
  }
  return open !== "";
}

const cells = (row: string) =>
  row
    .trim()
    .replace(/^\||\|$/g, "")
    .split("|").length;

function mendTable(block: string): string {
  const lines = block.split("\n");
  const start = lines.findIndex((line) => line.trim().startsWith("|"));
  if (start < 0) return block;
  const header = lines[start] ?? "";
  const rest = lines.length - start;
  if (rest > 2) return block;
  if (rest === 1 && cells(header) < 2 && !/\|.*\|/.test(header)) {
    // One bar alone may become a table or not.
    return lines.slice(0, start).join("\n");
  }
  const delimiter = lines[start + 1] ?? "";
  if (rest === 2 && !/^[|\s:-]*$/.test(delimiter)) return block;
  const closed = header.trim().endsWith("|") ? header : `${header} |`;
  const columns = cells(closed);
  return [...lines.slice(0, start), closed, `|${" --- |".repeat(columns)}`].join("\n");
}

// Marks that open and close emphasis, in the order in which they close.
function openMarks(text: string): { close: string; hold: number } {
  const stack: string[] = [];
  let i = 0;
  while (i < text.length) {
    const c = text[i] ?? "";
    if (c === "\\") {
      i += 2;
      continue;
    }
    if (c === "`") {
      const run = /^`+/.exec(text.slice(i))?.[0] ?? "`";
      const end = text.indexOf(run, i + run.length);
      if (end < 0) {
        // A code span: nothing inside is a mark.
        const body = text.slice(i + run.length);
        if (body === "") return { close: close(stack), hold: run.length };
        return { close: run + close(stack), hold: 0 };
      }
      i = end + run.length;
      continue;
    }
    if (c === "$") {
      const run = text.startsWith("$$", i) ? "$$" : "$";
      const end = text.indexOf(run, i + run.length);
      if (end < 0) {
        const body = text.slice(i + run.length);
        // A formula is shown once it is whole, a price at once.
        if (run === "$$" || /^[^\s\d]/.test(body)) return { close: close(stack), hold: text.length - i };
      } else {
        i = end + run.length;
        continue;
      }
    }
    if (c === "*" || c === "_" || c === "~") {
      const run = new RegExp(`^\\${c}+`).exec(text.slice(i))?.[0] ?? c;
      const before = text[i - 1] ?? " ";
      const after = text[i + run.length] ?? "";
      const marks = c === "~" ? (run.length === 2 ? ["~~"] : []) : splitRun(c, run.length);
      const word = /[\p{L}\p{N}]/u;
      const canClose = !/\s/.test(before);
      const canOpen = after !== "" && !/\s/.test(after) && !(c === "_" && word.test(before));
      for (const mark of marks) {
        if (canClose && stack.includes(mark)) stack.splice(stack.lastIndexOf(mark));
        else if (canOpen) stack.push(mark);
        else if (after === "" && i + run.length === text.length && (before === " " || before === "\n" || i === 0))
          return { close: close(stack), hold: run.length };
      }
      i += run.length;
      continue;
    }
    if (c === "!" || c === "[") {
      const found = /^!?\[[^\]\n]*(?:\](?:\([^)\n]*)?)?$/.exec(text.slice(i));
      if (found && (c === "[" || text[i + 1] === "[")) {
        if (c === "!") return { close: close(stack), hold: text.length - i };
        const link = /^\[([^\]\n]*)\]\([^)\n]*$/.exec(text.slice(i));
        if (link) return { close: `](#)${close(stack)}`, hold: text.length - i - 1 - (link[1]?.length ?? 0) };
      }
    }
    i++;
  }
  return { close: close(stack), hold: 0 };
}

const splitRun = (c: string, n: number) => (n >= 3 ? [c + c, c] : n === 2 ? [c + c] : [c]);
const close = (stack: string[]) => [...stack].reverse().join("");

/** A block that is still being written, as Markdown that shows well already. */
export function mendBlock(block: string): string {
  if (fenceLine.test(block) || fenceIsOpen(block)) return block; // an open fence runs to the end by itself
  let text = mendTable(block);
  if (text.includes("| --- |") && text !== block) return text;
  // "Title\n-" would be a heading for a moment; a bullet or number without text is noise.
  text = text
    .replace(/\n[ \t]*(?:[-=]{1,2}|[*+]|\d{1,9}[.)]?)[ \t]*$/, "")
    .replace(/^(?:[-=*+]{1,2}|#{1,6})[ \t]*$/, "");
  const lastRow = text.slice(text.lastIndexOf("\n") + 1);
  if (lastRow.trim().startsWith("|")) {
    // Marks don't reach across cells.
    const cell = lastRow.slice(lastRow.lastIndexOf("|") + 1);
    const { close: end, hold } = openMarks(cell);
    return text.slice(0, text.length - hold).replace(/\s+$/, "") + end;
  }
  const { close: end, hold } = openMarks(text);
  const kept = hold > 0 ? text.slice(0, text.length - hold) : text;
  return end === "" ? kept : kept.replace(/\s+$/, "") + end;
}
