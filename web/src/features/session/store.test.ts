import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { ApiError } from "@/api/client";
import { actionsOf } from "./context";
import { cell, detail, events, session } from "./fixtures";
import { SessionStore, whenAdopted } from "./store";

type Handler = (path: string, init: RequestInit) => Response | Promise<Response>;

let handle: Handler;
const requests: string[] = [];
const bodies: unknown[] = [];
const json = (value: unknown, status = 200) => new Response(JSON.stringify(value), { status });
const problem = (status: number, code: string) =>
  json({ status, code, detail: "It did not work.", hint: "Try this." }, status);
const frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));

beforeEach(() => {
  requests.length = bodies.length = 0;
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    if (url.includes("/events")) return new Response(new ReadableStream(), { status: 200 });
    requests.push(`${init.method} ${url}`);
    bodies.push(typeof init.body === "string" ? JSON.parse(init.body) : undefined);
    return handle(url, init);
  });
  handle = () => problem(500, "unexpected");
});
afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

async function opened(items = [cell("a", { code: "1" }), cell("b")]) {
  handle = () => json(detail(items, { last_seq: 10 }));
  const store = new SessionStore("ses_1");
  store.open();
  await vi.waitFor(() => expect(store.get().status).toBe("ready"));
  requests.length = bodies.length = 0;
  return store;
}

it("loads the session, and says why if it can't", async () => {
  const store = await opened();
  expect(store.get().order).toEqual(["a", "b"]);
  store.close();
  handle = () => problem(404, "session-not-found");
  const missing = new SessionStore("ses_2");
  missing.open();
  await vi.waitFor(() => expect(missing.get().status).toBe("failed"));
  expect(missing.get().error).toMatchObject({ status: 404, code: "session-not-found" });
});

it("shows all events of a frame at once", async () => {
  const store = await opened();
  let changes = 0;
  store.state.subscribe(() => changes++);
  for (let i = 0; i < 500; i++) {
    store.receive(events(11 + i, { type: "output.stream", item_id: "a", data: { name: "stdout", text: `${i}\n` } }));
  }
  expect(changes).toBe(0);
  await frame();
  expect(changes).toBe(1);
  expect(store.get().items.get("a")?.outputs?.[0]?.text?.split("\n")).toHaveLength(501);
  store.close();
});

it("makes the session once, when the first thing needs it", async () => {
  const adopted = vi.fn();
  const stop = whenAdopted(adopted);
  handle = (url) => (url === "/v1/sessions" ? json(session({ id: "ses_9" }), 201) : json(cell("c"), 201));
  const store = new SessionStore();
  expect(store.get().status).toBe("draft");
  const actions = actionsOf(store);
  await actions.updateSession({ model: "small" });
  expect(requests).toEqual([]); // choosing a model is no reason
  store.open();
  await Promise.all([actions.addItem({ kind: "cell" }), actions.ensureSandbox()]);
  expect(requests.filter((r) => r === "POST /v1/sessions")).toHaveLength(1);
  expect(bodies[0]).toEqual({ model: "small" });
  expect(requests).toContain("POST /v1/sessions/ses_9/items");
  expect(requests).toContain("POST /v1/sessions/ses_9/sandbox");
  expect(adopted).toHaveBeenCalledWith("ses_9");
  expect(store.get()).toMatchObject({ id: "ses_9", status: "ready" });
  stop();
  store.close();
});

it("asks for the sandbox with the first keystroke only", async () => {
  const store = await opened();
  handle = () => json({ state: "starting" }, 202);
  const actions = actionsOf(store);
  await Promise.all([actions.ensureSandbox(), actions.ensureSandbox()]);
  await actions.ensureSandbox();
  expect(requests).toEqual(["POST /v1/sessions/ses_1/sandbox"]);
  expect(store.get().session?.sandbox.state).toBe("starting");
  store.close();
});

it("shows an edit at once, saves it once the typing rests, and keeps it against older news", async () => {
  const store = await opened();
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  handle = () => json(cell("a", { code: "123" }));
  const actions = actionsOf(store);
  for (const code of ["12", "123"]) actions.edit("a", { code });
  expect(store.get().items.get("a")?.code).toBe("123");
  expect(requests).toEqual([]);
  await vi.advanceTimersByTimeAsync(600);
  expect(requests).toEqual(["PATCH /v1/sessions/ses_1/items/a"]);
  expect(bodies).toEqual([{ code: "123" }]);
  // The event of an earlier save comes late.
  store.receive(events(11, { type: "item.changed", item_id: "a", data: { code: "12" } }));
  store.flush();
  expect(store.get().items.get("a")?.code).toBe("123");
  // Its own event settles it; after that others may change it.
  store.receive(events(12, { type: "item.changed", item_id: "a", data: { code: "123" } }));
  store.flush();
  store.receive(events(13, { type: "item.changed", item_id: "a", data: { code: "from another tab" } }));
  store.flush();
  expect(store.get().items.get("a")?.code).toBe("from another tab");
  store.close();
});

it("takes an edit back that the server refuses", async () => {
  const store = await opened();
  handle = () => problem(409, "item-busy");
  actionsOf(store).edit("a", { outputs_hidden: true });
  expect(store.get().items.get("a")?.outputs_hidden).toBe(true);
  await vi.waitFor(() => expect(store.get().items.get("a")?.outputs_hidden).toBeUndefined());
  store.close();
});

it("keeps a text that could not be sent", async () => {
  const store = await opened();
  handle = () => Promise.reject(new TypeError("network error"));
  const actions = actionsOf(store);
  actions.edit("a", { code: "kept" });
  await actions.saveEdits("a");
  expect(store.get().items.get("a")?.code).toBe("kept");
  handle = () => json(cell("a", { code: "kept" }));
  await actions.saveEdits();
  expect(bodies.at(-1)).toEqual({ code: "kept" });
  store.close();
});

it("runs what the person sees", async () => {
  const store = await opened();
  handle = () => json({ items: [] }, 202);
  const actions = actionsOf(store);
  actions.edit("b", { code: "print(2)" });
  expect(await actions.runAll()).toBe(true);
  expect(requests).toEqual(["POST /v1/sessions/ses_1/run"]);
  expect(bodies[0]).toEqual({ items: ["a", "b"], code: { b: "print(2)" } });
  await actions.runFrom("b");
  expect(bodies[1]).toEqual({ items: ["b"], code: {} });
  store.close();
});

it("tells its caller when a call fails, and reads the problem", async () => {
  const store = await opened();
  handle = () => problem(409, "turn-running");
  expect(await actionsOf(store).send({ text: "hi" })).toBeUndefined();
  expect(await actionsOf(store).interrupt()).toBe(false);
  await expect(import("@/api/client").then((m) => m.call("GET", "/v1/x"))).rejects.toEqual(
    new ApiError(409, "turn-running", "It did not work.", "Try this."),
  );
  store.close();
});
