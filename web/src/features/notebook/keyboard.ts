// The keyboard of a notebook, as people know it from Jupyter: in edit mode keys
// go to the editor, in command mode they act on the selected entries. Pure, so
// that each rule can be tested; Thread.tsx carries out what it asks for.

export interface KeyState {
  mode: "command" | "edit";
  selected: string | null;
  /** The first key of a sequence such as dd, and when it came. */
  pending: string;
  pendingAt: number;
}

export const initialKeys: KeyState = { mode: "command", selected: null, pending: "", pendingAt: 0 };

/** What the reducer needs to know of an entry. */
export interface Entry {
  id: string;
  kind: "user" | "assistant" | "cell" | "note" | "tool";
}

export interface Key {
  key: string;
  shift: boolean;
  ctrl: boolean; // or Command
  alt: boolean;
  at: number; // milliseconds
}

export type Effect =
  | { do: "select"; id: string }
  | { do: "edit"; id: string }
  | { do: "leave"; id: string } // to command mode; focus the entry
  | { do: "run"; id: string; go: "stay" | "next" | "insert" }
  | { do: "insert"; after: string | null; before?: string; kind: "cell" | "note" } // after null: before the given one
  | { do: "delete" | "copy" | "cut" | "toNote" | "toCell"; id: string }
  | { do: "paste"; after: string }
  | { do: "moveUp" | "moveDown"; id: string }
  | { do: "toggleOutputs" | "toggleCode" | "toggleLines"; id: string }
  | { do: "undoDelete" | "interrupt" | "restart" | "help" | "find" | "composer" };

/** Two keys make a sequence if they come within this time. */
const sequence = 800;

export interface Step {
  state: KeyState;
  effects: Effect[];
  /** Whether the key was the notebook's; else it goes its usual way. */
  used: boolean;
}

const isCell = (entry: Entry | undefined) => entry?.kind === "cell";
const isOwn = (entry: Entry | undefined) => entry?.kind === "cell" || entry?.kind === "note";

export function pressKey(state: KeyState, key: Key, entries: readonly Entry[]): Step {
  const at = entries.findIndex((e) => e.id === state.selected);
  const entry = at < 0 ? undefined : entries[at];
  const pass: Step = { state: state.pending === "" ? state : { ...state, pending: "" }, effects: [], used: false };
  const does = (effects: Effect[], change: Partial<KeyState> = {}): Step => ({
    state: { ...state, pending: "", ...change },
    effects,
    used: true,
  });

  // Running is the same in both modes.
  if (key.key === "Enter" && entry && isOwn(entry)) {
    const note = entry.kind === "note";
    if (key.shift && !key.ctrl && !key.alt) return run(state, entry, entries[at + 1], "next");
    if (key.ctrl && !key.shift && !key.alt) {
      return does([{ do: "run", id: entry.id, go: "stay" }, ...(note ? [] : [leave(entry)])], { mode: "command" });
    }
    if (key.alt && !key.shift && !key.ctrl) return does([{ do: "run", id: entry.id, go: "insert" }], { mode: "edit" });
  }
  if (state.mode === "edit") {
    if (key.key === "Escape" && entry) return does([leave(entry)], { mode: "command" });
    return pass;
  }

  if (key.ctrl && key.shift && !key.alt && entry && isOwn(entry)) {
    if (key.key === "ArrowUp") return does([{ do: "moveUp", id: entry.id }]);
    if (key.key === "ArrowDown") return does([{ do: "moveDown", id: entry.id }]);
  }
  if (key.ctrl || key.alt) return pass;

  const go = (to: number): Step => {
    const target = entries[Math.max(0, Math.min(entries.length - 1, to))];
    return target ? does([{ do: "select", id: target.id }], { selected: target.id }) : pass;
  };

  const pending = key.at - state.pendingAt <= sequence ? state.pending : "";
  const second = (effect: Effect): Step =>
    pending === key.key
      ? does([effect])
      : { state: { ...state, pending: key.key, pendingAt: key.at }, effects: [], used: true };

  switch (key.key) {
    case "ArrowUp":
    case "k":
    case "K":
      return go(at < 0 ? entries.length - 1 : at - 1);
    case "ArrowDown":
    case "j":
    case "J":
      if (at >= 0 && at === entries.length - 1) return does([{ do: "composer" }]);
      return go(at < 0 ? entries.length - 1 : at + 1);
    case "Home":
      return go(0);
    case "End":
      return go(entries.length - 1);
    case "Enter":
      return entry && isOwn(entry) ? does([{ do: "edit", id: entry.id }], { mode: "edit" }) : pass;
    case "a":
      return entry
        ? does([{ do: "insert", after: entries[at - 1]?.id ?? null, before: entry.id, kind: "cell" }])
        : pass;
    case "b":
      return does([{ do: "insert", after: entry?.id ?? entries.at(-1)?.id ?? null, kind: "cell" }]);
    case "d":
      return entry && isOwn(entry) ? second({ do: "delete", id: entry.id }) : pass;
    case "x":
      return entry && isOwn(entry) ? does([{ do: "cut", id: entry.id }]) : pass;
    case "c":
      return entry ? does([{ do: "copy", id: entry.id }]) : pass;
    case "v":
      return entry ? does([{ do: "paste", after: entry.id }]) : pass;
    case "z":
      return does([{ do: "undoDelete" }]);
    case "m":
      return isCell(entry) && entry ? does([{ do: "toNote", id: entry.id }]) : pass;
    case "y":
      return entry?.kind === "note" ? does([{ do: "toCell", id: entry.id }]) : pass;
    case "o":
      return isCell(entry) && entry ? does([{ do: "toggleOutputs", id: entry.id }]) : pass;
    case "l":
    case "L":
      return isCell(entry) && entry ? does([{ do: "toggleLines", id: entry.id }]) : pass;
    case "i":
      return second({ do: "interrupt" });
    case "0":
      return second({ do: "restart" });
    case "h":
    case "?":
      return does([{ do: "help" }]);
    default:
      return pass;
  }
}

const leave = (entry: Entry): Effect => ({ do: "leave", id: entry.id });

function run(state: KeyState, entry: Entry, next: Entry | undefined, go: "next"): Step {
  const effects: Effect[] = [{ do: "run", id: entry.id, go }];
  // At the end a new cell is made, which is then edited.
  if (!next) return { state: { ...state, mode: "edit", pending: "" }, effects, used: true };
  effects.push({ do: "select", id: next.id });
  return { state: { ...state, mode: "command", selected: next.id, pending: "" }, effects, used: true };
}

/** Whether an element wants its keys for itself. */
export function takesKeys(target: EventTarget | null, key: string): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (
    target.isContentEditable ||
    target.closest(
      "input, textarea, select, [contenteditable=true], .cm-editor, [role=menu], [role=dialog], [role=listbox], [role=combobox]",
    )
  )
    return true;
  // Buttons and links answer Enter and Space, and some move by arrows.
  if (
    target.closest(
      "button, a[href], summary, [role=button], [role=tab], [role=slider], [role=grid], [role=tree], video, audio",
    )
  )
    return key === "Enter" || key === " " || key.startsWith("Arrow") || key === "Home" || key === "End";
  return false;
}
