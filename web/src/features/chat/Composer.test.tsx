import { QueryClientProvider } from "@tanstack/react-query";
import { cleanup, render, screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { ModelList, Session, SessionDetail } from "@/api/types";
import { SessionProvider, SessionStore } from "@/features/session";
import { queryClient } from "@/lib/query";
import { TooltipProvider } from "@/ui/tooltip";
import { Composer } from "./Composer";

const session: Session = {
  id: "ses_1",
  title: "",
  pinned: false,
  model: "m",
  template: "python",
  sandbox: { state: "none" },
  queue: [],
  usage: { input_tokens: 0, output_tokens: 0 },
  item_count: 0,
  last_seq: 1,
  created_at: "2026-11-23T00:00:00Z",
  updated_at: "2026-11-23T00:00:00Z",
};
const models: ModelList = {
  models: [{ name: "m", title: "M", default: true, vision: false, context_tokens: 1000, source: "config" }],
};

// The server, at the only place where the page talks to it.
interface Call {
  method: string;
  path: string;
  body: unknown;
}
let calls: Call[] = [];
let answers: Record<string, () => Response | Promise<Response>> = {};
const json = (value: unknown, status = 200) => new Response(JSON.stringify(value), { status });

beforeEach(() => {
  calls = [];
  answers = {};
  localStorage.clear();
  queryClient.clear();
  vi.stubGlobal("matchMedia", () => ({ matches: false, addEventListener() {}, removeEventListener() {} }));
  vi.stubGlobal("fetch", async (url: string, init: RequestInit = {}) => {
    const path = url.replace(/\?.*/, "");
    const method = init.method ?? "GET";
    if (path.endsWith("/events")) return new Promise<Response>(() => {});
    calls.push({ method, path, body: typeof init.body === "string" ? JSON.parse(init.body) : undefined });
    const answer = answers[`${method} ${path}`];
    if (answer) return answer();
    if (path === "/v1/models") return json(models);
    if (path === "/v1/sessions/ses_1") return json({ ...session, items: [] } satisfies SessionDetail);
    if (path.endsWith("/sandbox")) return json({ state: "starting" }, 202);
    if (path.endsWith("/messages")) return json({ item_id: "itm_1" }, 202);
    return json({}, 200);
  });
});
afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

async function show(change: Partial<Session> = {}) {
  const store = new SessionStore("ses_1");
  answers["GET /v1/sessions/ses_1"] = () => json({ ...session, ...change, items: [] });
  render(
    <QueryClientProvider client={queryClient}>
      <TooltipProvider>
        <SessionProvider store={store}>
          <Composer />
        </SessionProvider>
      </TooltipProvider>
    </QueryClientProvider>,
  );
  await waitFor(() => expect(store.get().status).toBe("ready"));
  return store;
}
const sent = (method: string, end: string) => calls.filter((c) => c.method === method && c.path.endsWith(end));

describe("Composer", () => {
  it("sends with Enter, makes a line with Shift+Enter, and is empty afterwards", async () => {
    await show();
    const field = screen.getByRole("textbox", { name: "Message" });
    await userEvent.type(field, "one{Shift>}{Enter}{/Shift}two");
    expect(sent("POST", "/messages")).toHaveLength(0);
    await userEvent.type(field, "{Enter}");
    await waitFor(() => expect(field).toHaveValue(""));
    expect(sent("POST", "/messages").map((c) => c.body)).toEqual([{ text: "one\ntwo", model: "m" }]);
  });

  it("asks for the sandbox with the first key, once", async () => {
    await show();
    await userEvent.type(screen.getByRole("textbox", { name: "Message" }), "plot");
    expect(sent("POST", "/sandbox")).toHaveLength(1);
  });

  it("sends no empty message", async () => {
    await show();
    await userEvent.type(screen.getByRole("textbox", { name: "Message" }), "  {Enter}");
    expect(sent("POST", "/messages")).toHaveLength(0);
    expect(screen.getByRole("button", { name: "Send" })).toBeDisabled();
  });

  it("keeps the text if the server does not take it", async () => {
    await show();
    answers["POST /v1/sessions/ses_1/messages"] = () => json({ code: "x", detail: "no" }, 503);
    const field = screen.getByRole("textbox", { name: "Message" });
    await userEvent.type(field, "keep me{Enter}");
    await waitFor(() => expect(sent("POST", "/messages")).toHaveLength(1));
    await waitFor(() => expect(screen.getByRole("button", { name: "Send" })).toBeEnabled());
    expect(field).toHaveValue("keep me");
  });

  it("keeps a draft over a reload, for each session", async () => {
    await show();
    await userEvent.type(screen.getByRole("textbox", { name: "Message" }), "half a thou");
    cleanup();
    await show();
    expect(screen.getByRole("textbox", { name: "Message" })).toHaveValue("half a thou");
  });

  it("stops with the button and with Escape while an answer runs, and offers to queue", async () => {
    const turn = {
      id: "trn_1",
      message_id: "itm_0",
      model: "m",
      status: "running" as const,
      round: 1,
      usage: session.usage,
      started_at: session.created_at,
    };
    await show({ turn, queue: [{ id: "itm_q", text: "and then this", created_at: session.created_at }] });
    expect(screen.getByText("and then this")).toBeInTheDocument();
    await userEvent.click(screen.getByRole("button", { name: "Don't send this" }));
    expect(sent("DELETE", "/queue/itm_q")).toHaveLength(1);
    await userEvent.click(screen.getByRole("button", { name: "Stop the answer" }));
    await userEvent.type(screen.getByRole("textbox", { name: "Message" }), "more");
    expect(screen.getByRole("button", { name: "Send when this answer is done" })).toBeEnabled();
    await userEvent.keyboard("{Escape}");
    expect(sent("POST", "/stop")).toHaveLength(2);
  });

  it("does not send while an input method composes", async () => {
    await show();
    const field = screen.getByRole("textbox", { name: "Message" });
    await userEvent.type(field, "にほ");
    field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true, isComposing: true }));
    expect(sent("POST", "/messages")).toHaveLength(0);
  });

  it("is a cell of Python without a model, and says so", async () => {
    await show({ model: "" });
    expect(await screen.findByText(/No model: this is a notebook/)).toBeInTheDocument();
    expect(screen.queryByRole("textbox", { name: "Message" })).toBeNull();
    expect(screen.getByRole("button", { name: "Run" })).toBeDisabled();
  });
});
