// For tests: the fixtures that server and page share, and events made by hand.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Item, Session, SessionDetail, SessionEvent } from "@/api/types";

/** The files of a txtar archive by name. */
export function parseTxtar(text: string): Record<string, string> {
  const files: Record<string, string> = {};
  let name = "";
  for (const line of text.split(/(?<=\n)/)) {
    const head = /^-- (.+) --\s*$/.exec(line);
    if (head?.[1]) {
      name = head[1];
      files[name] = "";
    } else if (name !== "") {
      files[name] += line;
    }
  }
  return files;
}

const folder = resolve(process.cwd(), "../internal/session/testdata/reduce");

export function reduceFixtures(): { name: string; files: Record<string, string> }[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.endsWith(".txtar"))
    .map((name) => ({ name, files: parseTxtar(readFileSync(resolve(folder, name), "utf8")) }));
}

const time = "2026-01-02T03:04:05Z";

export function session(change: Partial<Session> = {}): Session {
  return {
    id: "ses_1",
    title: "A session",
    pinned: false,
    model: "",
    template: "python",
    sandbox: { state: "none" },
    queue: [],
    usage: { input_tokens: 0, output_tokens: 0 },
    item_count: 0,
    last_seq: 0,
    created_at: time,
    updated_at: time,
    ...change,
  };
}

export function cell(id: string, change: Partial<Item> = {}): Item {
  return { id, kind: "cell", status: "idle", created_at: time, updated_at: time, ...change };
}

export function detail(items: Item[], change: Partial<Session> = {}): SessionDetail {
  return { ...session({ item_count: items.length, ...change }), items };
}

/** Numbers events from the given one on. */
export function events(first: number, ...list: (Partial<SessionEvent> & { type: string })[]): SessionEvent[] {
  return list.map((event, i) => ({ seq: first + i, time, data: {}, ...event }));
}
