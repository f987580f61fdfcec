import { act, cleanup, render, screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import type { ReactNode } from "react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Session, SessionSandbox, Usage, VariableList } from "@/api/types";
import { SessionProvider, SessionStore } from "@/features/session";
import { queryClient } from "@/lib/query";
import { TooltipProvider } from "@/ui/tooltip";
import { tight } from "./Meters";
import { SandboxStatus } from "./SandboxStatus";
import { withReading } from "./usage";
import { VariablesPanel } from "./VariablesPanel";

let count = 0;
function show(sandbox: SessionSandbox, children: ReactNode) {
  const store = new SessionStore(`ses_v${++count}`);
  const session: Session = {
    id: store.get().id,
    title: "",
    pinned: false,
    model: "",
    template: "python",
    sandbox,
    queue: [],
    usage: { input_tokens: 0, output_tokens: 0 },
    item_count: 0,
    last_seq: 1,
    created_at: "",
    updated_at: "",
  };
  store.state.setState({ session, status: "ready", seq: 1 });
  render(
    <TooltipProvider>
      <SessionProvider store={store}>{children}</SessionProvider>
    </TooltipProvider>,
  );
  const set = (next: SessionSandbox) => act(() => store.patchSession({ sandbox: next }));
  return { store, set };
}

const usage: Usage = {
  memory_bytes: 512 << 20,
  memory_limit_bytes: 2048 * 1024 * 1024,
  cpu_nanos: 1e9,
  disk_bytes: 1 << 20,
  disk_limit_bytes: 1 << 30,
  processes: 4,
  at: "2026-11-01T10:00:00Z",
};

/** What the server answers, by the end of the address. */
let answers: Record<string, () => Response> = {};
let calls: string[] = [];
const json = (body: unknown, status = 200) => new Response(JSON.stringify(body), { status });

beforeEach(() => {
  calls = [];
  answers = { events: () => new Response(new ReadableStream(), { status: 200 }), usage: () => json(usage) };
  vi.stubGlobal("fetch", async (input: string, init?: RequestInit) => {
    const path = new URL(input, "http://127.0.0.1").pathname;
    const route = path.replace(/^\/v1\/sessions\/[^/]+\//, "");
    calls.push(`${init?.method ?? "GET"} ${route}`);
    return answers[route]?.() ?? json({ code: "route", detail: path }, 404);
  });
});
afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

describe("SandboxStatus", () => {
  const user = userEvent.setup();
  const pill = () => screen.getByRole("button", { name: /^Sandbox: / });

  it("says in each state what is so and what to do", async () => {
    const { store, set } = show({ state: "none" }, <SandboxStatus />);
    expect(pill()).toHaveAccessibleName("Sandbox: No sandbox");
    await user.click(pill());
    expect(screen.getByText(/One starts as soon as you type/)).toBeVisible();
    set({ state: "starting" });
    expect(pill()).toHaveAccessibleName("Sandbox: Starting");
    set({ state: "ready", id: "sbx_1", limits: { cpus: 2, processes: 256 }, expires_at: "2099-01-01T00:00:00Z" });
    expect(pill()).toHaveAccessibleName("Sandbox: Ready");
    expect(await screen.findByText("512 MB of 2 GB")).toBeVisible();
    expect(screen.getByText("4 of 256")).toBeVisible();
    expect(screen.getByText(/at the latest/)).toBeVisible();
    set({ state: "busy", id: "sbx_1" });
    expect(screen.getByRole("button", { name: "Interrupt" })).toBeVisible();
    set({ state: "lost", id: "sbx_1", reason: "out_of_memory" });
    expect(screen.getByText(/more memory than it may.*The next run starts a new one/)).toBeVisible();
    set({ state: "lost", reason: "x", message: "The host went away. Run again." });
    expect(screen.getByText("The host went away. Run again.")).toBeVisible();
    set({ state: "none", reason: "idle" });
    expect(screen.getByText(/freed after a rest/)).toBeVisible();
    set({ state: "none", reason: "too-many-sandboxes", message: "All 8 are in use. Wait a little." });
    expect(pill()).toHaveAccessibleName("Sandbox: Did not start");
    expect(screen.getByText("All 8 are in use. Wait a little.")).toBeVisible();
    // Without a connection it does not claim to know.
    set({ state: "ready", id: "sbx_1" });
    act(() => store.state.setState({ connection: "offline" }));
    expect(pill()).toHaveAccessibleName("Sandbox: Not connected");
    expect(screen.getByText("last known: Ready")).toBeVisible();
  });

  it("asks for figures only while they are to be seen or code runs", async () => {
    const { set } = show({ state: "ready", id: "sbx_1" }, <SandboxStatus />);
    expect(calls).not.toContain("GET usage");
    set({ state: "busy", id: "sbx_1" });
    await waitFor(() => expect(calls).toContain("GET usage"));
  });

  it("offers no sleep where sandboxes can't, as on Kubernetes", async () => {
    const show1 = async (can: string[]) => {
      queryClient.clear();
      answers["/v1/info"] = () => json({ driver: "kube", capabilities: { can, enforces: {}, missing: {} } });
      show({ state: "ready", id: "sbx_1" }, <SandboxStatus />);
      await user.click(pill());
      await waitFor(() => expect(queryClient.getQueryData(["host"])).toBeDefined());
      await screen.findByRole("button", { name: "New sandbox" });
    };
    await show1(["pause"]);
    expect(screen.getByRole("button", { name: "Put to sleep" })).toBeVisible();
    cleanup();
    await show1([]);
    await waitFor(() => expect(screen.queryByRole("button", { name: "Put to sleep" })).toBeNull());
    queryClient.clear();
  });

  it("says since when it sleeps and what that takes, and wakes it", async () => {
    answers["/v1/sandboxes/sbx_1"] = () => json({ paused_at: new Date().toISOString(), saved_bytes: 85 << 20 });
    answers["/v1/sandboxes/sbx_1/pause"] = () => json({});
    answers.sandbox = () => json({ state: "paused" }, 202);
    const { set } = show({ state: "ready", id: "sbx_1" }, <SandboxStatus />);
    await user.click(pill());
    await user.click(screen.getByRole("button", { name: "Put to sleep" }));
    await waitFor(() => expect(calls).toContain("POST /v1/sandboxes/sbx_1/pause"));
    set({ state: "pausing", id: "sbx_1" });
    expect(pill()).toHaveAccessibleName("Sandbox: Falling asleep");
    expect(screen.queryByRole("button", { name: "Put to sleep" })).toBeNull();
    calls = [];
    set({ state: "paused", id: "sbx_1", expires_at: "2099-01-01T00:00:00Z" });
    expect(await screen.findByText(/^Asleep since .* \(85 MB on disk\)$/)).toBeVisible();
    expect(pill()).toHaveAccessibleName(/^Sandbox: Asleep since \d/);
    expect(screen.queryByText(/at the latest/)).toBeNull(); // its life does not run out
    expect(screen.queryByRole("meter")).toBeNull();
    await user.click(screen.getByRole("button", { name: "Wake" }));
    await waitFor(() => expect(calls).toContain("POST sandbox"));
    set({ state: "resuming", id: "sbx_1" });
    expect(pill()).toHaveAccessibleName("Sandbox: Waking");
    expect(calls).not.toContain("GET usage");
  });

  it("says why it woke without its variables", async () => {
    const message = "The sandbox slept and its memory could not be brought back (…).";
    show({ state: "ready", id: "sbx_1", reason: "snapshot-damaged", message }, <SandboxStatus />);
    await user.click(pill());
    expect(screen.getByText(/what was saved of it is damaged\. Files are there; run again/)).toBeVisible();
  });

  it("restarts and replaces after saying what is lost", async () => {
    answers["kernel/restart"] = () => new Response(null, { status: 204 });
    answers["sandbox/reset"] = () => json({ state: "starting" }, 202);
    show({ state: "ready", id: "sbx_1" }, <SandboxStatus />);
    await user.click(pill());
    await user.click(screen.getByRole("button", { name: "Restart Python" }));
    expect(await screen.findByText(/All variables and imports are gone/)).toBeVisible();
    await user.click(screen.getByRole("button", { name: "Restart Python" }));
    await waitFor(() => expect(calls).toContain("POST kernel/restart"));
    await user.click(pill());
    await user.click(screen.getByRole("button", { name: "New sandbox" }));
    expect(await screen.findByText(/Stays: the files in these two folders/)).toBeVisible();
    expect(calls).not.toContain("POST sandbox/reset");
    await user.click(screen.getByRole("button", { name: "New sandbox" }));
    await waitFor(() => expect(calls).toContain("POST sandbox/reset"));
  });
});

describe("figures", () => {
  it("make CPU time a rate, and begin again with another sandbox", () => {
    const one = withReading([], usage);
    const two = withReading(one, { ...usage, cpu_nanos: 4e9, at: "2026-11-01T10:00:02Z" });
    expect(two.at(-1)?.cpus).toBeCloseTo(1.5);
    expect(withReading(two, two[1] as Usage)).toBe(two);
    expect(withReading(two, { ...usage, cpu_nanos: 1, at: "2026-11-01T10:00:04Z" })).toHaveLength(1);
  });

  it("tell which limit is near", () => {
    expect(tight(usage)).toBe("");
    expect(tight({ ...usage, memory_bytes: usage.memory_limit_bytes * 0.9 })).toBe("memory");
    expect(tight({ ...usage, disk_bytes: usage.disk_limit_bytes })).toBe("disk");
  });
});

describe("VariablesPanel", () => {
  const user = userEvent.setup();
  const list: VariableList = {
    variables: [
      { name: "df", type: "DataFrame", shape: "3 × 2", size_bytes: 2048, preview: "a  b", table: true },
      { name: "n", type: "int", preview: "41" },
      { name: "text", type: "str", preview: "'hello'" },
    ],
  };

  it("lists, filters, and reads again after each run", async () => {
    answers.variables = () => json(list);
    const { store } = show({ state: "ready", id: "sbx_1", kernel_id: "krn_1" }, <VariablesPanel />);
    expect(await screen.findByText("DataFrame · 3 × 2 · 2 KB")).toBeVisible();
    await user.type(screen.getByRole("searchbox"), "te");
    expect(screen.queryByText("df")).toBeNull();
    expect(screen.getByText("text")).toBeVisible();
    await user.clear(screen.getByRole("searchbox"));
    answers.variables = () => json({ variables: [{ name: "fresh", type: "int", preview: "1" }] });
    act(() => store.state.setState({ runsVersion: 99 }));
    expect(await screen.findByText("fresh")).toBeVisible();
  });

  it("keeps the old list while the kernel is busy, and says so", async () => {
    answers.variables = () => json(list);
    const { store } = show({ state: "ready", id: "sbx_1", kernel_id: "krn_1" }, <VariablesPanel />);
    await screen.findByText("df");
    answers.variables = () => json({ code: "kernel-busy", detail: "busy" }, 409);
    act(() => store.state.setState({ runsVersion: 99 }));
    expect(await screen.findByText(/as of the last run that ended/)).toBeVisible();
    expect(screen.getByText("df")).toBeVisible();
  });

  it("keeps the list of one that sleeps, and wakes none by looking", async () => {
    answers.variables = () => json(list);
    answers.sandbox = () => json({ state: "paused" }, 202);
    const { set } = show({ state: "ready", id: "sbx_1", kernel_id: "krn_1" }, <VariablesPanel />);
    await screen.findByText("df");
    calls = [];
    set({ state: "paused", id: "sbx_1" });
    expect(screen.getByText("Asleep: as of when it was awake.")).toBeVisible();
    expect(screen.getByText("df")).toBeVisible();
    answers.variables = () => json({ variables: [{ name: "fresh", type: "int", preview: "1" }] });
    await user.click(screen.getByRole("button", { name: "Wake" }));
    await waitFor(() => expect(calls).toEqual(["POST sandbox"]));
    set({ state: "ready", id: "sbx_1", kernel_id: "krn_1" });
    expect(await screen.findByText("fresh")).toBeVisible();
  });

  it("says that it sleeps where it never saw a list", async () => {
    vi.useFakeTimers();
    show({ state: "paused", id: "sbx_1", kernel_id: "krn_1" }, <VariablesPanel />);
    expect(screen.getByText("Asleep")).toBeVisible();
    act(() => vi.advanceTimersByTime(60_000));
    vi.useRealTimers();
    expect(calls).not.toContain("GET variables");
  });

  it("goes from one to the next by arrows", async () => {
    answers.variables = () => json(list);
    show({ state: "ready", id: "sbx_1", kernel_id: "krn_1" }, <VariablesPanel />);
    (await screen.findByText("df")).closest("button")?.focus();
    await user.keyboard("{ArrowDown}");
    expect(document.activeElement).toHaveAttribute("data-variable", "n");
    await user.keyboard("{End}");
    expect(document.activeElement).toHaveAttribute("data-variable", "text");
  });

  it("says why there are none", async () => {
    const { set } = show({ state: "none" }, <VariablesPanel />);
    expect(screen.getByText(/There is no sandbox/)).toBeVisible();
    answers.variables = () => json({ variables: [] });
    set({ state: "ready", id: "sbx_1" });
    expect(await screen.findByText("No variables yet")).toBeVisible();
    answers.variables = () => json({ code: "oops", detail: "It broke.", hint: "Restart it." }, 500);
    set({ state: "ready", id: "sbx_2" });
    expect(await screen.findByText("It broke. Restart it.")).toBeVisible();
  });
});
