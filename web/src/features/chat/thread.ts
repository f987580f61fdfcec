// How the flat list of a session divides into turns, and how tall its entries
// are before they are drawn.
import type { Item } from "@/api/types";

export interface Section {
  /** The message that begins it; "" for what stands before the first message. */
  id: string;
  entries: readonly string[];
}

/** Sections of the thread: each message of the person with all that follows it. */
export function sections(order: readonly string[], items: ReadonlyMap<string, Item>): Section[] {
  const result: { id: string; entries: string[] }[] = [];
  for (const id of order) {
    const kind = items.get(id)?.kind;
    if (kind === undefined) continue;
    const last = result.at(-1);
    if (kind === "user" || !last) result.push({ id: kind === "user" ? id : "", entries: [id] });
    else last.entries.push(id);
  }
  return result;
}

/** Sections as before where nothing changed, so that those are not drawn again. */
export function keepSections(before: readonly Section[], now: readonly Section[]): readonly Section[] {
  const old = new Map(before.map((section) => [section.id, section]));
  let same = before.length === now.length;
  const result = now.map((section, i) => {
    const kept = old.get(section.id);
    if (
      kept &&
      kept.entries.length === section.entries.length &&
      kept.entries.every((id, j) => id === section.entries[j])
    ) {
      if (before[i] !== kept) same = false;
      return kept;
    }
    same = false;
    return section;
  });
  return same ? before : result;
}

const lines = (text: string | undefined, width: number) =>
  (text ?? "").split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / width)), 0);

/** About how many pixels an entry will take: holds its place until it is drawn. */
export function estimate(item: Item): number {
  switch (item.kind) {
    case "user":
      return 64 + Math.min(12, lines(item.text, 70)) * 24 + (item.files?.length ? 36 : 0);
    case "assistant":
    case "note":
      return 24 + lines(item.text, 84) * 25;
    case "tool":
      return item.tool?.name === "get_current_weather" ? 210 : 64;
    case "cell": {
      let height = 68 + (item.code_hidden ? 20 : (item.code ?? "").split("\n").length * 20);
      if (item.outputs_hidden) return height + 36;
      for (const output of item.outputs ?? []) {
        const data = output.data ?? {};
        if ("image/png" in data || "image/jpeg" in data || "image/svg+xml" in data) height += 380;
        else if (Object.keys(data).some((mime) => /table|plotly|vega|html/.test(mime))) height += 320;
        else if (output.output_type === "error") height += 160;
        else height += textHeight(output.text ?? "");
      }
      return height;
    }
  }
}

/** Text of a stream as it is drawn: line by line, and from some length on in a place of fixed height. */
function textHeight(text: string): number {
  let count = 1;
  for (let at = text.indexOf("\n"); at >= 0 && at < text.length - 1; at = text.indexOf("\n", at + 1)) {
    if (++count > 400) return 438;
  }
  return 20 + count * 20;
}

/** The entries at the end that fill this height: what a session opens with. */
export function lastScreen(order: readonly string[], items: ReadonlyMap<string, Item>, height: number): string[] {
  const last: string[] = [];
  let filled = 0;
  for (let i = order.length - 1; i >= 0 && filled < height; i--) {
    const id = order[i] as string;
    const item = items.get(id);
    last.push(id);
    filled += item ? estimate(item) : 0;
  }
  return last;
}

// Where each turn begins, by the list it was found in: all answers ask at each change.
const starts = new WeakMap<readonly string[], Map<string, string>>();

/** The entry with which the answer that item belongs to begins. */
export function answerStart(item: Item, order: readonly string[], items: ReadonlyMap<string, Item>): Item {
  if (!item.turn_id) return item;
  let known = starts.get(order);
  if (!known) {
    known = new Map();
    for (const id of order) {
      const turn = items.get(id)?.turn_id;
      if (turn && !known.has(turn)) known.set(turn, id);
    }
    starts.set(order, known);
  }
  const first = known.get(item.turn_id);
  return (first === undefined ? undefined : items.get(first)) ?? item;
}

/** Everything the model said in one turn. */
export function answerText(turnId: string, order: readonly string[], items: ReadonlyMap<string, Item>): string {
  return order
    .flatMap((id) => {
      const item = items.get(id);
      return item?.turn_id === turnId && item.kind === "assistant" && item.text ? [item.text] : [];
    })
    .join("\n\n");
}
