import { act, cleanup, fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Item, Session } from "@/api/types";
import { SessionProvider, SessionStore } from "@/features/session";
import { TooltipProvider } from "@/ui/tooltip";
import { FilesPanel } from "./FilesPanel";
import { usePreview } from "./preview";
import { TransferList } from "./TransferList";
import { addTransfers, type Transfer, useTransferStore } from "./transfers";
import { uploader } from "./upload";

/** The files of a session as the server has them, answered to fetch. */
class Disk {
  files = new Map<string, { type: "file" | "directory"; size: number; kept?: boolean }>();
  bin = new Map<string, { type: "file" | "directory"; size: number }>();
  calls: string[] = [];

  fetch = async (input: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const url = new URL(String(input), "http://127.0.0.1");
    const method = init?.method ?? "GET";
    const route = url.pathname.replace(/^\/v1\/sessions\/[^/]+/, "");
    const path = url.searchParams.get("path") ?? "";
    this.calls.push(`${method} ${route} ${path}`.trim());
    const json = (status: number, body: unknown) =>
      new Response(body === undefined ? null : JSON.stringify(body), { status });
    if (route === "/events") return new Response(new ReadableStream(), { status: 200 });
    if (route === "/files" && method === "GET") {
      if (path !== "/workspace" && path !== "/uploaded_files" && !this.files.has(path))
        return json(404, { code: "file-not-found", detail: "gone" });
      return json(200, {
        ...this.view(path),
        entries: [...this.files.keys()].filter((p) => p.slice(0, p.lastIndexOf("/")) === path).map((p) => this.view(p)),
      });
    }
    if (route === "/files" && method === "DELETE") {
      const old = this.files.get(path);
      if (!old) return json(404, { code: "file-not-found", detail: "gone" });
      this.bin.set(path, old);
      this.files.delete(path);
      return json(204, undefined);
    }
    if (route === "/files/restore") {
      this.files.set(path, this.bin.get(path) ?? { type: "file", size: 0 });
      return json(200, {});
    }
    const body = JSON.parse(String(init?.body ?? "{}")) as { from: string; to: string; path: string };
    if (route === "/files/mkdir") {
      this.files.set(body.path, { type: "directory", size: 0 });
      return json(201, this.view(body.path));
    }
    if (route === "/files/move") {
      if (this.files.has(body.to)) return json(409, { code: "file-exists", detail: "exists" });
      for (const [p, f] of [...this.files]) {
        if (p !== body.from && !p.startsWith(`${body.from}/`)) continue;
        this.files.delete(p);
        this.files.set(body.to + p.slice(body.from.length), f);
      }
      return json(200, this.view(body.to));
    }
    return json(404, { code: "route", detail: url.pathname });
  };

  private view(path: string) {
    const f = this.files.get(path) ?? { type: "directory" as const, size: 0 };
    return {
      path,
      name: path.slice(path.lastIndexOf("/") + 1),
      type: f.type,
      size_bytes: f.size,
      mode: "",
      modified_at: "2026-11-01T10:00:00Z",
      ...("kept" in f ? { kept: f.kept } : {}),
    };
  }
}

let count = 0;
function session(id: string, state = "ready"): Session {
  return {
    id,
    title: "",
    pinned: false,
    model: "",
    template: "python",
    sandbox: { state: state as Session["sandbox"]["state"], id: "sbx_1" },
    queue: [],
    usage: { input_tokens: 0, output_tokens: 0 },
    item_count: 0,
    last_seq: 1,
    created_at: "",
    updated_at: "",
  };
}

function show(disk: Disk, items: Item[] = [], state = "ready") {
  const id = `ses_${++count}`;
  vi.stubGlobal("fetch", disk.fetch);
  const store = new SessionStore(id);
  store.state.setState({
    session: session(id, state),
    status: "ready",
    items: new Map(items.map((i) => [i.id, i])),
    order: items.map((i) => i.id),
    seq: 1,
  });
  render(
    <TooltipProvider>
      <SessionProvider store={store}>
        <FilesPanel />
      </SessionProvider>
    </TooltipProvider>,
  );
  return { store, id };
}

const row = (name: RegExp | string) => screen.getByRole("treeitem", { name });

describe("FilesPanel", () => {
  let disk: Disk;
  const user = userEvent.setup();
  beforeEach(() => {
    localStorage.clear();
    useTransferStore.setState({ transfers: [] });
    usePreview.setState({ path: null });
    disk = new Disk();
    disk.files.set("/workspace/data", { type: "directory", size: 0 });
    disk.files.set("/workspace/data/a.csv", { type: "file", size: 12 });
    disk.files.set("/workspace/plot10.png", { type: "file", size: 2048 });
    disk.files.set("/workspace/plot2.png", { type: "file", size: 2048 });
    disk.files.set("/uploaded_files/in.csv", { type: "file", size: 5 });
  });
  afterEach(() => {
    cleanup();
    vi.unstubAllGlobals();
  });

  it("is a tree for the keyboard", async () => {
    show(disk);
    await waitFor(() => row(/^plot10.png/));
    expect(screen.getAllByRole("treeitem").map((r) => r.getAttribute("data-path"))).toEqual([
      "/workspace",
      "/workspace/data",
      "/workspace/plot2.png",
      "/workspace/plot10.png",
      "/uploaded_files",
      "/uploaded_files/in.csv",
    ]);
    // One stop for Tab.
    expect(screen.getAllByRole("treeitem").filter((r) => r.tabIndex === 0)).toHaveLength(1);
    act(() => row("Workspace").focus());
    await user.keyboard("{ArrowDown}");
    expect(document.activeElement).toBe(row("data"));
    expect(row("data")).toHaveAttribute("aria-expanded", "false");
    await user.keyboard("{ArrowRight}");
    await waitFor(() => expect(row(/^a.csv/)).toBeVisible());
    await user.keyboard("{ArrowRight}");
    expect(document.activeElement).toBe(row(/^a.csv/));
    expect(row(/^a.csv/)).toHaveAttribute("aria-level", "3");
    await user.keyboard("{Enter}");
    expect(usePreview.getState().path).toBe("/workspace/data/a.csv");
    await screen.findByRole("dialog", { name: "a.csv" });
    await user.keyboard("{Escape}");
    await waitFor(() => expect(row(/^a.csv/)).toHaveFocus()); // where it came from
    await user.keyboard("{ArrowLeft}{ArrowLeft}");
    expect(screen.queryByRole("treeitem", { name: /^a.csv/ })).toBeNull();
    await user.keyboard("{End}");
    expect(document.activeElement).toBe(row(/^in.csv/));
    await user.keyboard("plot1");
    expect(document.activeElement).toBe(row(/^plot10.png/));
    await user.keyboard("{Shift>}{ArrowUp}{/Shift}");
    expect(screen.getAllByRole("treeitem", { selected: true }).map((r) => r.getAttribute("data-path"))).toEqual([
      "/workspace/plot2.png",
      "/workspace/plot10.png",
    ]);
    expect(screen.getByText("2 selected")).toBeVisible();
  });

  it("renames in place, and says when the name is taken", async () => {
    show(disk);
    await waitFor(() => row(/^plot2.png/));
    act(() => row(/^plot2.png/).focus());
    await user.click(document.body);
    fireEvent.keyDown(row("Workspace"), { key: "ArrowDown" });
    fireEvent.keyDown(row("data"), { key: "ArrowDown" });
    fireEvent.keyDown(row(/^plot2.png/), { key: "F2" });
    const input = await screen.findByRole("textbox", { name: "New name" });
    await waitFor(() => expect(input).toHaveFocus());
    await user.clear(input);
    await user.type(input, "plot10.png{Enter}");
    expect(await screen.findByRole("alert")).toHaveTextContent("has this name already");
    await user.clear(input);
    await user.type(input, "best.png{Enter}");
    await waitFor(() => expect(row(/^best.png/)).toHaveFocus());
    expect(disk.files.has("/workspace/best.png")).toBe(true);
    expect(screen.queryByRole("treeitem", { name: /^plot2.png/ })).toBeNull();
  });

  it("deletes the selection and brings it back", async () => {
    const { id } = show(disk);
    await waitFor(() => row(/^plot10.png/));
    fireEvent.keyDown(row("Workspace"), { key: "ArrowDown" });
    fireEvent.keyDown(row("data"), { key: "Delete" });
    await waitFor(() => expect(screen.queryByRole("treeitem", { name: "data" })).toBeNull());
    expect(disk.calls).toContain("DELETE /files /workspace/data");
    await waitFor(() => expect(row(/^plot2.png/)).toHaveFocus());
    const { filesOf } = await import("./store");
    await act(() => filesOf(id).restore(["/workspace/data"]));
    expect(row("data")).toBeVisible();
  });

  it("makes a folder where it is asked to", async () => {
    show(disk);
    await waitFor(() => row(/^plot10.png/));
    await user.click(screen.getByRole("button", { name: "More" }));
    await user.click(await screen.findByRole("menuitem", { name: "New folder" }));
    const input = await screen.findByRole("textbox", { name: "New name" });
    expect(input).toHaveValue("untitled-folder");
    await user.type(input, "{Enter}");
    await waitFor(() => expect(disk.files.get("/workspace/untitled-folder")?.type).toBe("directory"));
    expect(await screen.findByRole("treeitem", { name: "untitled-folder" })).toBeVisible();
  });

  it("marks what a cell made until it is looked at", async () => {
    const made: Item = {
      id: "itm_1",
      kind: "cell",
      status: "ok",
      execution_id: "exe_1",
      execution_count: 3,
      finished_at: "2026-11-01T10:00:00Z",
      changes: [
        { path: "/workspace/plot2.png", change: "created" },
        { path: "/workspace/data/a.csv", change: "modified" },
      ],
      created_at: "",
      updated_at: "",
    };
    show(disk, [made]);
    await waitFor(() => row(/^plot2.png.*Made by cell \[3\]/));
    // In a closed folder the folder says so.
    expect(within(row(/^data/)).getByRole("img", { name: "Holds new or changed files" })).toBeVisible();
    await user.click(row(/^plot2.png/));
    await screen.findByRole("dialog", { name: "plot2.png" });
    await user.keyboard("{Escape}");
    expect(row(/^plot2.png/)).not.toHaveAccessibleName(expect.stringContaining("Made by"));
  });

  it("loads again when files changed, and only then", async () => {
    const { store } = show(disk);
    await waitFor(() => row(/^plot10.png/));
    disk.files.set("/workspace/late.txt", { type: "file", size: 1 });
    const before = disk.calls.length;
    act(() => store.state.setState({ filesVersion: 7 }));
    act(() => store.state.setState({ filesVersion: 8 }));
    expect(await screen.findByRole("treeitem", { name: /^late.txt/ })).toBeVisible();
    expect(disk.calls.slice(before)).toEqual(["GET /files /workspace", "GET /files /uploaded_files"]);
  });

  it("finds files in folders that were never opened", async () => {
    show(disk);
    await waitFor(() => row(/^plot10.png/));
    await user.type(screen.getByRole("searchbox"), "a.csv");
    expect(await screen.findByRole("treeitem", { name: /^a.csv/ })).toBeVisible();
    expect(screen.queryByRole("treeitem", { name: /^plot2/ })).toBeNull();
    await user.clear(screen.getByRole("searchbox"));
    await user.type(screen.getByRole("searchbox"), "nothing");
    expect(await screen.findByText("No file is called so.")).toBeVisible();
  });

  it("says that it shows the kept copy, and what is not kept", async () => {
    disk.files.set("/workspace/huge.bin", { type: "file", size: 1e9, kept: false });
    show(disk, [], "none");
    await waitFor(() => row(/huge.bin.*Not kept when the sandbox goes/));
    expect(screen.getByText(/No sandbox runs/)).toBeVisible();
  });

  it("teaches when there is nothing", async () => {
    show(new Disk());
    expect(await screen.findByText("No files yet")).toBeVisible();
    expect(screen.getByText("Upload files").closest("button")).toBeEnabled();
  });
});

describe("TransferList", () => {
  const transfer = (patch: Partial<Transfer>): Transfer => ({
    id: patch.name ?? "a.csv",
    sessionId: "ses_t",
    batch: "b",
    origin: "drop",
    name: "a.csv",
    path: `/uploaded_files/${patch.name ?? "a.csv"}`,
    size: 2048,
    sent: 1024,
    rate: 0,
    status: "sending",
    ...patch,
  });
  const list = () =>
    render(
      <TooltipProvider>
        <TransferList sessionId="ses_t" />
      </TooltipProvider>,
    );
  const user = userEvent.setup();
  beforeEach(() => useTransferStore.setState({ transfers: [] }));
  afterEach(() => {
    cleanup();
    vi.restoreAllMocks();
  });

  it("shows how far each is", () => {
    addTransfers([
      transfer({}),
      transfer({ name: "b.csv", status: "done" }),
      transfer({ name: "c.csv", status: "offline" }),
    ]);
    list();
    expect(screen.getByRole("status")).toHaveTextContent("2 uploads go on");
    expect(screen.getByRole("progressbar", { name: "a.csv" })).toHaveAttribute("aria-valuenow", "50");
    expect(screen.getByText(/1 KB of 2 KB/)).toBeVisible();
    expect(screen.getByText("no network: goes on by itself")).toBeVisible();
  });

  it("asks what to do with what exists, once for all", async () => {
    const decide = vi.spyOn(uploader, "decide").mockImplementation(() => {});
    addTransfers([transfer({ status: "asking" }), transfer({ name: "b.csv", status: "asking" })]);
    list();
    expect(screen.getByRole("status")).toHaveTextContent("2 uploads ask you");
    await user.click(screen.getByRole("button", { name: "Keep all" }));
    expect(decide).toHaveBeenCalledWith("a.csv", "keep-both", true);
  });

  it("says why one failed, and tries again", async () => {
    const retry = vi.spyOn(uploader, "retry").mockImplementation(() => {});
    addTransfers([
      transfer({
        status: "failed",
        problem: { code: "upload-too-large", detail: "It is too large.", hint: "Send less." },
      }),
    ]);
    list();
    expect(screen.getByText("It is too large. Send less.")).toBeVisible();
    await user.click(screen.getByRole("button", { name: "Try again" }));
    expect(retry).toHaveBeenCalled();
  });
});
