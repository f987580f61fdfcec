import { describe, expect, it } from "vitest";
import { type Effect, type Entry, initialKeys, type KeyState, pressKey, takesKeys } from "./keyboard";

const entries: Entry[] = [
  { id: "u", kind: "user" },
  { id: "c1", kind: "cell" },
  { id: "n", kind: "note" },
  { id: "c2", kind: "cell" },
];

// Keys as "Ctrl+Shift+ArrowUp"; "wait" lets time pass.
function type(keys: string[], from: Partial<KeyState> = {}, list = entries) {
  let state: KeyState = { ...initialKeys, selected: "c1", ...from };
  const effects: Effect[] = [];
  const used: boolean[] = [];
  let at = 1000;
  for (const text of keys) {
    if (text === "wait") {
      at += 5000;
      continue;
    }
    const parts = text.split("+");
    const key = parts.pop() ?? "";
    const step = pressKey(
      state,
      { key, shift: parts.includes("Shift"), ctrl: parts.includes("Ctrl"), alt: parts.includes("Alt"), at },
      list,
    );
    at += 100;
    state = step.state;
    effects.push(...step.effects);
    used.push(step.used);
  }
  return { state, effects, used };
}

describe("command mode", () => {
  it("moves over all entries, and to the composer behind the last", () => {
    expect(type(["j", "ArrowDown"]).state.selected).toBe("c2");
    expect(type(["k", "ArrowUp", "k"]).state.selected).toBe("u");
    expect(type(["j"], { selected: "c2" }).effects).toEqual([{ do: "composer" }]);
    expect(type(["k"], { selected: null }).state.selected).toBe("c2");
  });

  it("enters cells and notes, not messages", () => {
    expect(type(["Enter"]).effects).toEqual([{ do: "edit", id: "c1" }]);
    expect(type(["Enter"]).state.mode).toBe("edit");
    expect(type(["Enter"], { selected: "u" }).used).toEqual([false]);
  });

  it("inserts above and below", () => {
    expect(type(["a"]).effects).toEqual([{ do: "insert", after: "u", before: "c1", kind: "cell" }]);
    expect(type(["a"], { selected: "u" }).effects).toEqual([{ do: "insert", after: null, before: "u", kind: "cell" }]);
    expect(type(["b"]).effects).toEqual([{ do: "insert", after: "c1", kind: "cell" }]);
  });

  it("deletes with dd in time, never a message, and z brings back", () => {
    expect(type(["d", "d"]).effects).toEqual([{ do: "delete", id: "c1" }]);
    expect(type(["d", "wait", "d"]).effects).toEqual([]);
    expect(type(["d", "j", "d"]).effects).toEqual([{ do: "select", id: "n" }]);
    expect(type(["d", "d"], { selected: "u" }).used).toEqual([false, false]);
    expect(type(["z"]).effects).toEqual([{ do: "undoDelete" }]);
  });

  it("interrupts with ii and asks to restart with 00", () => {
    expect(type(["i", "i"]).effects).toEqual([{ do: "interrupt" }]);
    expect(type(["0", "0"]).effects).toEqual([{ do: "restart" }]);
    expect(type(["i", "0"]).effects).toEqual([]);
  });

  it("turns cells into text and back, copies, cuts, pastes, hides output", () => {
    expect(type(["m"]).effects).toEqual([{ do: "toNote", id: "c1" }]);
    expect(type(["y"], { selected: "n" }).effects).toEqual([{ do: "toCell", id: "n" }]);
    expect(type(["y"]).used).toEqual([false]);
    expect(type(["c", "x", "v", "o", "l"]).effects.map((e) => e.do)).toEqual([
      "copy",
      "cut",
      "paste",
      "toggleOutputs",
      "toggleLines",
    ]);
  });

  it("moves entries with Ctrl+Shift, and leaves the browser its other keys", () => {
    expect(type(["Ctrl+Shift+ArrowUp"]).effects).toEqual([{ do: "moveUp", id: "c1" }]);
    expect(type(["Ctrl+c", "Ctrl+a", "Alt+b", "Tab", "F5", " "]).used).toEqual(Array(6).fill(false));
  });
});

describe("running", () => {
  it("Shift+Enter runs and goes on, in both modes", () => {
    for (const mode of ["command", "edit"] as const) {
      const { effects, state } = type(["Shift+Enter"], { mode });
      expect(effects).toEqual([
        { do: "run", id: "c1", go: "next" },
        { do: "select", id: "n" },
      ]);
      expect(state).toMatchObject({ selected: "n", mode: "command" });
    }
  });
  it("Shift+Enter on the last entry leaves room for a new one", () => {
    const { effects, state } = type(["Shift+Enter"], { selected: "c2" });
    expect(effects).toEqual([{ do: "run", id: "c2", go: "next" }]);
    expect(state.mode).toBe("edit");
  });
  it("Ctrl+Enter stays, Alt+Enter inserts", () => {
    expect(type(["Ctrl+Enter"], { mode: "edit" }).effects).toEqual([
      { do: "run", id: "c1", go: "stay" },
      { do: "leave", id: "c1" },
    ]);
    expect(type(["Alt+Enter"]).effects).toEqual([{ do: "run", id: "c1", go: "insert" }]);
  });
});

describe("edit mode", () => {
  it("takes no letters and no arrows", () => {
    expect(type(["a", "d", "d", "j", "ArrowUp", "Enter", "0", "0"], { mode: "edit" }).used).toEqual(
      Array(8).fill(false),
    );
  });
  it("Escape leaves", () => {
    const { effects, state } = type(["Escape"], { mode: "edit" });
    expect(effects).toEqual([{ do: "leave", id: "c1" }]);
    expect(state.mode).toBe("command");
  });
});

describe("takesKeys", () => {
  it("leaves inputs all keys and buttons theirs", () => {
    document.body.innerHTML = `<div id="d"><input id="i"><button id="b"></button><div class="cm-editor"><p id="p"></p></div></div>`;
    const get = (id: string) => document.getElementById(id);
    expect(takesKeys(get("i"), "d")).toBe(true);
    expect(takesKeys(get("p"), "d")).toBe(true);
    expect(takesKeys(get("b"), "Enter")).toBe(true);
    expect(takesKeys(get("b"), "d")).toBe(false);
    expect(takesKeys(get("d"), "Enter")).toBe(false);
  });
});
