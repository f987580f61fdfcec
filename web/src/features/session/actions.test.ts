import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { actionsOf } from "./context";
import { cell, detail } from "./fixtures";
import { SessionStore } from "./store";

const requests: string[] = [];

beforeEach(() => {
  requests.length = 0;
  const items = [cell("a", { code: "while True: pass", status: "running" }), cell("b")];
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    if (url.includes("/events")) return new Response(new ReadableStream(), { status: 200 });
    requests.push(`${init.method} ${url.replace("/v1/sessions/ses_1", "")}`);
    if (init.method === "GET") return new Response(JSON.stringify(detail(items, { last_seq: 10 })));
    return new Response(null, { status: 204 });
  });
});
afterEach(() => vi.unstubAllGlobals());

async function opened() {
  const store = new SessionStore("ses_1");
  store.open();
  await vi.waitFor(() => expect(store.get().status).toBe("ready"));
  requests.length = 0;
  return store;
}

it("interrupts a cell that runs, and deletes it when it has ended", async () => {
  const store = await opened();
  const done = actionsOf(store).removeItem("a");
  await vi.waitFor(() => expect(requests).toEqual(["POST /items/a/interrupt"]));
  const running = store.get().items.get("a");
  if (!running) throw new Error("no cell");
  store.put({ ...running, status: "interrupted" });
  await done;
  expect(requests).toEqual(["POST /items/a/interrupt", "DELETE /items/a"]);
});

it("deletes a cell at rest at once", async () => {
  const store = await opened();
  await actionsOf(store).removeItem("b");
  expect(requests).toEqual(["DELETE /items/b"]);
});
