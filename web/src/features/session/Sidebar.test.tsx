import { QueryClientProvider } from "@tanstack/react-query";
import { act, render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { navigate } from "wouter/use-browser-location";
import type { Session } from "@/api/types";
import { setLanguage } from "@/lib/i18n";
import { queryClient } from "@/lib/query";
import { Toaster } from "@/ui/toast";
import { TooltipProvider } from "@/ui/tooltip";
import { session } from "./fixtures";
import { Sidebar } from "./Sidebar";
import { groupByAge } from "./sessions";

const now = Date.now();
const ago = (hours: number) => new Date(now - hours * 3_600_000).toISOString();

let sessions: Session[];
const requests: { method: string; url: string; body: unknown }[] = [];

beforeEach(() => {
  setLanguage("en");
  navigate("/");
  requests.length = 0;
  sessions = [
    session({ id: "ses_p", title: "Kept", pinned: true, updated_at: ago(500) }),
    session({ id: "ses_1", title: "Sales", updated_at: ago(0) }),
    session({ id: "ses_2", title: "", updated_at: ago(24 * 20) }),
  ];
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    const method = init.method ?? "GET";
    requests.push({ method, url, body: typeof init.body === "string" ? JSON.parse(init.body) : init.body });
    const { pathname, searchParams } = new URL(url, "http://localhost");
    const id = pathname.split("/")[3];
    if (method === "GET") {
      const query = (searchParams.get("query") ?? "").toLowerCase();
      const found = sessions.filter((s) => s.title.toLowerCase().includes(query));
      const from = Number(searchParams.get("cursor") ?? 0);
      const next = from + 2 < found.length && searchParams.get("query") === null ? String(from + 2) : undefined;
      return new Response(JSON.stringify({ sessions: next || from ? found.slice(from, from + 2) : found, next }));
    }
    if (method === "PATCH") {
      sessions = sessions.map((s) => (s.id === id ? { ...s, ...JSON.parse(init.body as string) } : s));
      return new Response(JSON.stringify(sessions.find((s) => s.id === id)));
    }
    if (method === "DELETE") {
      sessions = sessions.filter((s) => s.id !== id);
      return new Response(null, { status: 204 });
    }
    if (pathname.endsWith("/restore")) {
      const back = session({ id: id ?? "", title: "Sales", updated_at: ago(0) });
      sessions = [...sessions.slice(0, 1), back, ...sessions.slice(1)];
      return new Response(JSON.stringify(back));
    }
    return new Response(JSON.stringify(session({ id: "ses_new", title: "Copy" })), { status: 201 });
  });
});
afterEach(() => {
  queryClient.clear();
  vi.unstubAllGlobals();
});

async function show() {
  const onNew = vi.fn();
  const user = userEvent.setup();
  render(
    <QueryClientProvider client={queryClient}>
      <TooltipProvider>
        <Sidebar onNew={onNew} />
        <Toaster />
      </TooltipProvider>
    </QueryClientProvider>,
  );
  await screen.findByText("Sales");
  return { user, onNew };
}

async function menu(user: ReturnType<typeof userEvent.setup>, title: string, entry: string) {
  await user.click(screen.getByRole("button", { name: `Menu of “${title}”` }));
  await user.click(await screen.findByRole("menuitem", { name: entry }));
}

const asked = (method: string) => requests.filter((r) => r.method === method);

describe("the list", () => {
  it("groups by age, pinned ones first", async () => {
    await show();
    const headings = screen.getAllByRole("heading").map((h) => h.textContent);
    expect(headings).toEqual(["Pinned", "Today"]);
    const today = screen.getByRole("region", { name: "Today" });
    expect(within(today).getByRole("link", { name: "Sales" })).toHaveAttribute("href", "/s/ses_1");
  });

  it("shows the next page on demand", async () => {
    const { user } = await show();
    expect(screen.queryByText("Untitled")).not.toBeInTheDocument();
    await user.click(screen.getByRole("button", { name: "Show more" }));
    expect(await screen.findByText("Untitled")).toBeInTheDocument();
    expect(screen.getByRole("region", { name: "Earlier" })).toBeInTheDocument();
    expect(screen.queryByRole("button", { name: "Show more" })).not.toBeInTheDocument();
  });

  it("searches on the server, and says when nothing is found", async () => {
    const { user } = await show();
    await user.type(screen.getByRole("searchbox"), "kept");
    await waitFor(() => expect(screen.queryByText("Sales")).not.toBeInTheDocument());
    expect(requests.some((r) => r.url.includes("query=kept"))).toBe(true);
    await user.type(screen.getByRole("searchbox"), "xyz");
    expect(await screen.findByText("No session has these words.")).toBeInTheDocument();
    await user.keyboard("{Escape}");
    expect(await screen.findByText("Sales")).toBeInTheDocument();
  });

  it("says which one is open", async () => {
    navigate("/s/ses_1");
    await show();
    expect(screen.getByRole("link", { name: "Sales" })).toHaveAttribute("aria-current", "page");
  });

  it("begins a new session", async () => {
    const { user, onNew } = await show();
    await user.click(screen.getByRole("button", { name: "New session" }));
    expect(onNew).toHaveBeenCalledTimes(1);
  });
});

describe("a session's menu", () => {
  it("renames in place: Enter keeps, Escape does not", async () => {
    const { user } = await show();
    await menu(user, "Sales", "Rename");
    const field = await screen.findByRole("textbox", { name: "Title" });
    expect(field).toHaveValue("Sales");
    await user.clear(field);
    await user.type(field, "Revenue{Enter}");
    expect(await screen.findByText("Revenue")).toBeInTheDocument();
    expect(asked("PATCH")).toMatchObject([{ url: "/v1/sessions/ses_1", body: { title: "Revenue" } }]);
    await user.dblClick(screen.getByText("Revenue"));
    await user.type(await screen.findByRole("textbox", { name: "Title" }), "nonsense{Escape}");
    expect(await screen.findByText("Revenue")).toBeInTheDocument();
    expect(asked("PATCH")).toHaveLength(1);
  });

  it("pins", async () => {
    const { user } = await show();
    await menu(user, "Sales", "Pin");
    await waitFor(() =>
      expect(within(screen.getByRole("region", { name: "Pinned" })).getByText("Sales")).toBeInTheDocument(),
    );
    expect(asked("PATCH")).toMatchObject([{ body: { pinned: true } }]);
  });

  it("deletes at once and takes it back", async () => {
    navigate("/s/ses_1");
    const { user } = await show();
    await menu(user, "Sales", "Delete");
    await waitFor(() => expect(screen.queryByRole("link", { name: "Sales" })).not.toBeInTheDocument());
    expect(location.pathname).toBe("/");
    expect(await screen.findByText("“Sales” deleted")).toBeInTheDocument();
    await user.click(screen.getByRole("button", { name: "Undo" }));
    expect(await screen.findByRole("link", { name: "Sales" })).toBeInTheDocument();
    expect(requests.some((r) => r.method === "POST" && r.url === "/v1/sessions/ses_1/restore")).toBe(true);
    await waitFor(() => expect(location.pathname).toBe("/s/ses_1"));
  });

  it("duplicates and opens the copy", async () => {
    const { user } = await show();
    await menu(user, "Sales", "Duplicate");
    await waitFor(() => expect(location.pathname).toBe("/s/ses_new"));
    act(() => navigate("/"));
  });

  it("exports in three formats", async () => {
    const { user } = await show();
    await user.click(screen.getByRole("button", { name: "Menu of “Sales”" }));
    (await screen.findByRole("menuitem", { name: "Export" })).focus();
    await user.keyboard("{ArrowRight}");
    const link = await screen.findByRole("menuitem", { name: "Jupyter notebook (.ipynb)" });
    expect(link).toHaveAttribute("href", "/v1/sessions/ses_1/export?format=ipynb");
    expect(link).toHaveAttribute("download");
  });
});

it("puts days under the right heading, whatever the hour", () => {
  const at = (text: string, pinned = false) => session({ id: text, updated_at: new Date(text).toISOString(), pinned });
  const groups = groupByAge(
    [at("2026-03-10T00:01:00"), at("2026-03-09T23:59:00"), at("2026-03-08T12:00:00"), at("2020-01-01T00:00:00", true)],
    new Date("2026-03-10T00:30:00"),
  );
  expect(groups.map((g) => [g.age, g.sessions.length])).toEqual([
    ["pinned", 1],
    ["today", 1],
    ["yesterday", 1],
    ["earlier", 1],
  ]);
});
