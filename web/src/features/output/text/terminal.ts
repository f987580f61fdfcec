// What a terminal would show of a stream: lines of styled text, with the few
// movements of the cursor that progress bars make. There is no screen: lines
// are never wrapped or scrolled away, and the cursor can go up to the first.
import { applySGR, plain, type Style, withLink } from "./style";

/** Text of one style. */
export interface Run {
  text: string;
  style: Style;
}

/** A line: just text if no part of it has a style. */
export type Line = string | readonly Run[];

export function lineText(line: Line): string {
  return typeof line === "string" ? line : line.map((run) => run.text).join("");
}

// Beyond this a line is not written into any more: moving the cursor far to
// the right would fill memory with spaces.
const maxColumn = 1 << 20;

// A sequence that has not ended after so much is none.
const maxPending = 4096;

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this is about
const special = /[\x00-\x08\x0b-\x1f\x7f\x9b]/;

export class Terminal {
  readonly lines: Line[] = [""];
  /** Grows with every change. */
  version = 0;
  /** The first line that changed since the reader set it to Infinity. */
  dirtyFrom = 0;

  private row = 0;
  private column = 0;
  private style: Style = plain;
  private pending = "";
  private saved = { row: 0, column: 0 };

  feed(text: string): void {
    if (text === "") return;
    this.version++;
    const data = this.pending === "" ? text : this.pending + text;
    this.pending = "";
    let at = 0;
    while (at < data.length) {
      const rest = data.slice(at).search(special);
      const end = rest < 0 ? data.length : at + rest;
      if (end > at) this.write(at === 0 && end === data.length ? data : data.slice(at, end));
      at = end;
      if (at < data.length) {
        const next = this.control(data, at);
        if (next < 0) {
          this.pending = data.slice(at);
          if (this.pending.length > maxPending) this.pending = "";
          return;
        }
        at = next;
      }
    }
  }

  /** Text with newlines and tabs and nothing else that is special. */
  private write(text: string): void {
    const parts = text.split("\n");
    for (let i = 0; i < parts.length; i++) {
      if (i > 0) this.newline();
      const part = parts[i] as string;
      if (part !== "") this.put(part);
    }
  }

  private newline(): void {
    this.row++;
    this.column = 0;
    if (this.row === this.lines.length) {
      this.lines.push("");
      this.touch(this.row);
    }
  }

  private touch(row: number): void {
    if (row < this.dirtyFrom) this.dirtyFrom = row;
  }

  private put(text: string): void {
    const line = this.lines[this.row] as Line;
    this.touch(this.row);
    if (typeof line === "string" && this.style === plain) {
      // The common cases: a line begins, or goes on at its end.
      if (this.column === line.length) {
        this.lines[this.row] = line + text;
        this.column += text.length;
        return;
      }
      const gap = this.column > line.length ? " ".repeat(this.column - line.length) : "";
      const end = this.column + text.length;
      this.lines[this.row] = whole(line, 0, this.column) + gap + text + whole(line, end, line.length);
      this.column += text.length;
      return;
    }
    const runs: Run[] = [];
    const push = (t: string, style: Style) => {
      const last = runs.at(-1);
      if (t === "") return;
      if (last && last.style === style) runs[runs.length - 1] = { text: last.text + t, style };
      else runs.push({ text: t, style });
    };
    const length = copy(line, 0, this.column, push);
    if (length < this.column) push(" ".repeat(this.column - length), plain);
    push(text, this.style);
    this.column += text.length;
    copy(line, this.column, Number.POSITIVE_INFINITY, push);
    this.lines[this.row] = compact(runs);
  }

  /** Erases columns from..to of the line the cursor is in. */
  private erase(from: number, to: number): void {
    const line = this.lines[this.row] as Line;
    this.touch(this.row);
    const runs: Run[] = [];
    const push = (text: string, style: Style) => void (text !== "" && runs.push({ text, style }));
    const length = copy(line, 0, from, push);
    const tail = lineText(line).length - to;
    if (tail > 0) {
      push(" ".repeat(to - Math.min(length, from)), plain);
      copy(line, to, Number.POSITIVE_INFINITY, push);
    }
    this.lines[this.row] = compact(runs);
  }

  private moveTo(row: number, column: number): void {
    this.row = Math.max(0, row);
    // Down goes only as far as one line beyond what is there, once for each line asked for, bounded.
    const most = this.lines.length + 200;
    this.row = Math.min(this.row, most);
    while (this.lines.length <= this.row) {
      this.touch(this.lines.length);
      this.lines.push("");
    }
    this.column = Math.min(Math.max(0, column), maxColumn);
  }

  /** Handles the control character at a place; gives where text goes on, or -1 if the rest has yet to come. */
  private control(data: string, at: number): number {
    switch (data.charCodeAt(at)) {
      case 0x0d:
        this.column = 0;
        return at + 1;
      case 0x08:
        this.column = Math.max(0, this.column - 1);
        return at + 1;
      case 0x0b:
      case 0x0c:
        this.newline();
        return at + 1;
      case 0x9b:
        return this.csi(data, at + 1);
      case 0x1b: {
        const next = data[at + 1];
        if (next === undefined) return -1;
        if (next === "[") return this.csi(data, at + 2);
        if (next === "]") return this.osc(data, at + 2);
        if (next === "P" || next === "_" || next === "^" || next === "X") return stringEnd(data, at + 2)?.next ?? -1;
        if (next === "7") this.saved = { row: this.row, column: this.column };
        if (next === "8") this.moveTo(this.saved.row, this.saved.column);
        if (next === "M") this.moveTo(this.row - 1, this.column);
        // ESC ( B and its like name a character set.
        if ("()*+-./#% ".includes(next)) return data.length > at + 2 ? at + 3 : -1;
        return at + 2;
      }
      default:
        return at + 1; // bells and the like
    }
  }

  private csi(data: string, at: number): number {
    let end = at;
    while (end < data.length && data.charCodeAt(end) >= 0x20 && data.charCodeAt(end) <= 0x3f) end++;
    if (end >= data.length) return -1;
    const parameters = data.slice(at, end);
    const final = data[end] as string;
    if (final < "@" || final > "~") return end; // broken off by something else
    if (/^[?<=>]/.test(parameters)) return end + 1; // private modes: cursor, mouse, screen
    if (final === "m") {
      this.style = applySGR(this.style, parameters);
      return end + 1;
    }
    const numbers = parameters.split(";").map((p) => Number.parseInt(p, 10));
    const n = Math.min(Math.max(1, numbers[0] || 1), maxColumn);
    switch (final) {
      case "A":
        this.moveTo(this.row - n, this.column);
        break;
      case "B":
      case "e":
        this.moveTo(this.row + n, this.column);
        break;
      case "C":
      case "a":
        this.moveTo(this.row, this.column + n);
        break;
      case "D":
        this.moveTo(this.row, this.column - n);
        break;
      case "E":
        this.moveTo(this.row + n, 0);
        break;
      case "F":
        this.moveTo(this.row - n, 0);
        break;
      case "G":
      case "`":
        this.moveTo(this.row, n - 1);
        break;
      case "H":
      case "f":
        this.moveTo(n - 1, (numbers[1] || 1) - 1);
        break;
      case "d":
        this.moveTo(n - 1, this.column);
        break;
      case "K":
        this.eraseLine(numbers[0] || 0);
        break;
      case "J":
        this.eraseDisplay(numbers[0] || 0);
        break;
      case "P": {
        // Deletes letters: what is behind them moves left.
        const line = this.lines[this.row] as Line;
        const runs: Run[] = [];
        const push = (text: string, style: Style) => void (text !== "" && runs.push({ text, style }));
        copy(line, 0, this.column, push);
        copy(line, this.column + n, Number.POSITIVE_INFINITY, push);
        this.lines[this.row] = compact(runs);
        this.touch(this.row);
        break;
      }
      case "X":
        this.erase(this.column, this.column + n);
        break;
      case "M":
        this.touch(this.row);
        this.lines.splice(this.row, n);
        if (this.lines.length <= this.row) this.moveTo(this.row, 0);
        break;
      case "s":
        this.saved = { row: this.row, column: this.column };
        break;
      case "u":
        this.moveTo(this.saved.row, this.saved.column);
        break;
    }
    return end + 1;
  }

  private eraseLine(what: number): void {
    if (what === 0) this.erase(this.column, Number.POSITIVE_INFINITY);
    else if (what === 1) this.erase(0, this.column + 1);
    else this.erase(0, Number.POSITIVE_INFINITY);
  }

  private eraseDisplay(what: number): void {
    if (what === 0) {
      this.erase(this.column, Number.POSITIVE_INFINITY);
      this.lines.length = this.row + 1;
    } else if (what === 1) {
      this.lines.fill("", 0, this.row);
      this.touch(0);
      this.erase(0, this.column + 1);
    } else {
      this.lines.length = 1;
      this.lines[0] = "";
      this.row = 0;
      this.column = 0;
      this.touch(0);
    }
  }

  private osc(data: string, at: number): number {
    const end = stringEnd(data, at);
    if (!end) return -1;
    const link = /^8;[^;]*;(.*)$/s.exec(end.text);
    if (link) this.style = withLink(this.style, link[1] as string);
    return end.next;
  }
}

/** The end of a string sequence: BEL or ESC \. */
function stringEnd(data: string, at: number): { text: string; next: number } | undefined {
  for (let i = at; i < data.length; i++) {
    const c = data.charCodeAt(i);
    if (c === 0x07) return { text: data.slice(at, i), next: i + 1 };
    if (c === 0x1b) {
      if (i + 1 >= data.length) return undefined;
      return { text: data.slice(at, i), next: data[i + 1] === "\\" ? i + 2 : i };
    }
  }
  return undefined;
}

/** Hands out columns from..to of a line; gives how many columns there were before `to`. */
function copy(line: Line, from: number, to: number, push: (text: string, style: Style) => void): number {
  const runs = typeof line === "string" ? [{ text: line, style: plain }] : line;
  let column = 0;
  for (const run of runs) {
    const end = column + run.text.length;
    if (end > from && column < to) push(whole(run.text, Math.max(0, from - column), to - column), run.style);
    column = end;
    if (column >= to) return to;
  }
  return column;
}

/** A piece of text; half of a pair of surrogates at its ends becomes a space. */
function whole(text: string, from: number, to: number): string {
  let piece = text.slice(from, to);
  if (/^[\udc00-\udfff]/.test(piece)) piece = ` ${piece.slice(1)}`;
  if (/[\ud800-\udbff]$/.test(piece)) piece = `${piece.slice(0, -1)} `;
  return piece;
}

function compact(runs: Run[]): Line {
  if (runs.every((run) => run.style === plain)) return runs.map((run) => run.text).join("");
  return runs;
}
