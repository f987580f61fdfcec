import { describe, expect, it } from "vitest";
import type { Item, SessionDetail, SessionEvent } from "@/api/types";
import { cell, detail, events, reduceFixtures } from "./fixtures";
import { StreamOutput } from "./outputs";
import { emptyThread, load, reduce, type Thread } from "./reducer";

/** The visible items as the server would send them. */
function plain(thread: Thread): Item[] {
  const items = thread.order.map((id) => thread.items.get(id));
  const copy = JSON.parse(JSON.stringify(items)) as Item[];
  for (const item of copy) {
    if (item.outputs?.length === 0) delete item.outputs;
  }
  return copy;
}

const stream = (item_id: string, text: string, name = "stdout") => ({
  type: "output.stream",
  item_id,
  data: { name, text },
});

describe("the fixtures that the server passes too", () => {
  const fixtures = reduceFixtures();
  it.runIf(process.env.CI === "true")("exist", () => expect(fixtures.length).toBeGreaterThan(0));
  for (const { name, files } of fixtures) {
    it.each(["all at once", "one by one"])(`${name}, %s`, (how) => {
      const list = (files["events.jsonl"] ?? "")
        .split("\n")
        .filter((line) => line.trim() !== "")
        .map((line) => JSON.parse(line) as SessionEvent);
      let thread: Thread = files["detail.json"]
        ? load(JSON.parse(files["detail.json"]) as SessionDetail)
        : { ...emptyThread, session: detail([]) };
      if (how === "all at once") thread = reduce(thread, list);
      else for (const event of list) thread = reduce(thread, [event]);
      expect(plain(thread)).toEqual(JSON.parse(files["items.json"] ?? "[]"));
    });
  }
});

describe("reduce", () => {
  const start = load(detail([cell("a", { code: "1" }), cell("b")], { last_seq: 10 }));

  it("ignores what is already part of the state", () => {
    expect(reduce(start, events(9, { type: "item.removed", item_id: "a" }))).toBe(start);
    expect(reduce(start, [])).toBe(start);
  });

  it("leaves items alone that nothing happened to", () => {
    const next = reduce(start, events(11, stream("a", "hello")));
    expect(next.items.get("b")).toBe(start.items.get("b"));
    expect(next.items.get("a")).not.toBe(start.items.get("a"));
    expect(start.items.get("a")?.outputs).toBeUndefined();
    expect(next.seq).toBe(11);
  });

  it("puts items behind others and first", () => {
    const added = (id: string, after: string) => ({ type: "item.added", item_id: id, data: { item: cell(id), after } });
    expect(reduce(start, events(11, added("c", "a"), added("d", ""))).order).toEqual(["d", "a", "c", "b"]);
  });

  it("removes fields by null and begins a run anew", () => {
    const ran = reduce(
      start,
      events(
        11,
        stream("a", "old"),
        {
          type: "execution.finished",
          item_id: "a",
          data: { status: "error", reason: "out_of_memory", execution_count: 1 },
        },
        {
          type: "item.changed",
          item_id: "a",
          data: { outputs: [], status: "queued", reason: null, execution_id: "exe_2" },
        },
        stream("a", "new"),
      ),
    );
    expect(ran.items.get("a")).toMatchObject({ status: "queued", execution_id: "exe_2", execution_count: 1 });
    expect(ran.items.get("a")).not.toHaveProperty("reason");
    expect(plain(ran)[0]?.outputs).toEqual([{ output_type: "stream", name: "stdout", text: "new" }]);
  });

  it("asks for input until the execution says anything else", () => {
    const asked = reduce(
      start,
      events(11, { type: "input.requested", item_id: "a", data: { prompt: "?", password: false } }),
    );
    expect(asked.items.get("a")?.input).toEqual({ prompt: "?", password: false });
    expect(reduce(asked, events(12, stream("a", "x"))).items.get("a")?.input).toBeUndefined();
  });

  it("updates displays in every cell that shows them, also after a reload", () => {
    const shown = { data: { "text/plain": "1" }, metadata: {}, transient: { display_id: "d" } };
    const show = (item_id: string) => ({ type: "output.display_data", item_id, data: shown });
    const update = {
      type: "output.update_display_data",
      item_id: "b",
      data: { ...shown, data: { "text/plain": "2" } },
    };
    const before = reduce(start, events(11, show("a"), show("b")));
    const reloaded = load(detail(plain(before), { last_seq: 12 }));
    for (const thread of [before, reloaded]) {
      const after = reduce(thread, events(13, update));
      expect(plain(after).map((item) => item.outputs?.[0]?.data)).toEqual([
        { "text/plain": "2" },
        { "text/plain": "2" },
      ]);
    }
  });

  it("clears at the next output when it is told to wait", () => {
    const wait = reduce(
      start,
      events(11, stream("a", "old"), { type: "output.clear", item_id: "a", data: { wait: true } }),
    );
    expect(plain(wait)[0]?.outputs?.[0]?.text).toBe("old");
    expect(plain(reduce(wait, events(13, stream("a", "new"))))[0]?.outputs).toEqual([
      { output_type: "stream", name: "stdout", text: "new" },
    ]);
  });

  it("follows the turn and says how it ended", () => {
    const turn = { id: "trn_1", message_id: "a", model: "m", status: "running", round: 1 };
    const running = reduce(start, events(11, { type: "turn.started", data: turn }));
    expect(running.session?.turn).toEqual(turn);
    const ended = reduce(running, events(12, { type: "turn.finished", data: { ...turn, status: "limit" } }));
    expect(ended.session).not.toHaveProperty("turn");
    expect(ended.lastTurn?.status).toBe("limit");
  });

  it("shows another branch and forgets the items of the old one", () => {
    const next = reduce(
      start,
      events(11, { type: "thread.changed", data: { order: ["a", "c"], items: [cell("c", { text: "other" })] } }),
    );
    expect(next.order).toEqual(["a", "c"]);
    expect([...next.items.keys()]).toEqual(["a", "c"]);
    expect(next.items.get("a")).toBe(start.items.get("a"));
  });

  it("takes 200,000 lines, a frame's worth at a time, without copying what is there", () => {
    let thread: Thread = start;
    const began = performance.now();
    for (let frame = 0; frame < 200; frame++) {
      const list: SessionEvent[] = [];
      for (let i = 0; i < 1000; i++) {
        list.push({ seq: 11 + frame * 1000 + i, time: "", ...stream("a", `line ${frame * 1000 + i}\n`) });
      }
      thread = reduce(thread, list);
    }
    const took = performance.now() - began;
    const output = thread.items.get("a")?.outputs?.[0];
    expect(output).toBeInstanceOf(StreamOutput);
    const { chunks } = output as StreamOutput;
    expect(chunks.count).toBe(200); // one piece a frame
    expect(chunks.from(199)[0]?.startsWith("line 199000\n")).toBe(true);
    expect(chunks.toString().split("\n")).toHaveLength(200_001);
    expect(took).toBeLessThan(2000); // 200 frames; quadratic work would take minutes
  });
});
