// @vitest-environment jsdom
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { getTransfer, type Transfer, useTransferStore } from "./transfers";
import { Uploader, type UploaderOptions } from "./upload";

/** A server that keeps uploads as the real one does, and cuts connections when told to. */
class Store {
  readonly files = new Map<string, Buffer>();
  readonly parts = new Map<string, Buffer>();
  readonly requests: string[] = [];
  /** Ends the connection after so many bytes of the next bodies. */
  cuts: number[] = [];
  /** Answers these statuses first. */
  refusals: { status: number; body?: unknown; headers?: Record<string, string> }[] = [];
  /** Held until let go. */
  gate: Promise<void> | undefined;
  /** Lists nothing, as if each file came a moment later. */
  blind = false;
  atOnce = 0;
  most = 0;
  private server: Server;
  origin = "";

  constructor() {
    this.server = createServer((req, res) => {
      const url = new URL(req.url ?? "", "http://x");
      const path = url.searchParams.get("path") ?? "";
      res.setHeader("Access-Control-Allow-Origin", "*");
      res.setHeader("Access-Control-Allow-Headers", "*, upload-id, content-range, content-type");
      res.setHeader("Access-Control-Allow-Methods", "*, PUT, HEAD, GET, POST");
      res.setHeader("Access-Control-Expose-Headers", "Range, Retry-After, Upload-Offset");
      const reply = (status: number, body?: unknown, headers: Record<string, string> = {}) => {
        for (const [k, v] of Object.entries(headers)) res.setHeader(k, v);
        res.statusCode = status;
        res.end(body === undefined ? undefined : JSON.stringify(body));
      };
      if (req.method === "OPTIONS") return reply(204);
      const route = url.pathname.replace(/^\/v1\/sessions\/ses_1\/files\/?/, "");
      this.requests.push(`${req.method} ${route} ${path} ${req.headers["content-range"] ?? ""}`.trim());
      const id = String(req.headers["upload-id"] ?? "");
      if (req.method === "GET" && route === "") {
        const names = [...this.files.keys()].filter((f) => f.slice(0, f.lastIndexOf("/")) === path);
        if (names.length === 0 || this.blind) return reply(404, { code: "file-not-found" });
        return reply(200, { entries: names.map((f) => ({ name: f.slice(f.lastIndexOf("/") + 1) })) });
      }
      if (req.method === "HEAD" && route === "upload") {
        const have = this.parts.get(id);
        if (!have) return reply(404);
        return reply(200, undefined, have.length > 0 ? { Range: `bytes=0-${have.length - 1}` } : {});
      }
      if (req.method === "POST") return reply(201, {});
      const refusal = this.refusals.shift();
      if (refusal) {
        req.resume();
        return reply(refusal.status, refusal.body ?? {}, refusal.headers);
      }
      const range = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(req.headers["content-range"] ?? "");
      const at = range ? Number(range[1]) : 0;
      const total = range ? Number(range[3]) : undefined;
      const before = this.parts.get(id) ?? Buffer.alloc(0);
      if (at !== before.length && range) {
        req.resume();
        return reply(409, { code: "upload-offset" });
      }
      if (this.files.has(path) && url.searchParams.get("overwrite") !== "true") {
        req.resume();
        return reply(409, { code: "file-exists" });
      }
      const cut = this.cuts.shift();
      let got = Buffer.alloc(0);
      let severed = false;
      this.most = Math.max(this.most, ++this.atOnce);
      res.on("close", () => this.atOnce--);
      req.on("data", (data: Buffer) => {
        got = Buffer.concat([got, data]);
        if (cut !== undefined && got.length >= cut && !severed) {
          severed = true;
          this.parts.set(id, Buffer.concat([before, got.subarray(0, cut)]));
          req.socket.destroy();
        }
      });
      req.on("end", async () => {
        if (severed) return;
        await this.gate;
        const all = Buffer.concat([before, got]);
        if (total !== undefined && all.length < total) {
          this.parts.set(id, all);
          return reply(308, undefined, { Range: `bytes=0-${all.length - 1}` });
        }
        this.parts.delete(id);
        this.files.set(path, all);
        return reply(201, { path });
      });
    });
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    this.origin = `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.server.closeAllConnections();
    this.server.close();
  }
}

function bytes(n: number): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(n);
  for (let i = 0; i < n; i++) all[i] = (i * 31 + (i >> 8)) & 255;
  return all;
}

function file(name: string, content: string | Uint8Array<ArrayBuffer>): File {
  return new File([content], name, { lastModified: 1_700_000_000_000 });
}

describe("Uploader", () => {
  let store: Store;
  let online = true;
  const make = (more: Partial<UploaderOptions> = {}) =>
    new Uploader({ origin: store.origin, chunkBytes: 1000, backoffMs: () => 5, online: () => online, ...more });
  const state = (t: Transfer | undefined) => getTransfer(t?.id ?? "")?.status;

  beforeEach(async () => {
    useTransferStore.setState({ transfers: [] });
    localStorage.clear();
    online = true;
    store = new Store();
    await store.start();
  });
  afterEach(() => store.stop());

  it("sends small files whole, empty ones too", async () => {
    const up = make();
    const [a, b] = await up.add("ses_1", [file("a.csv", "x,y\n1,2\n"), file("empty.txt", "")]);
    expect(await up.done(a?.id ?? "")).toBe("/uploaded_files/a.csv");
    expect(await up.done(b?.id ?? "")).toBe("/uploaded_files/empty.txt");
    expect(store.files.get("/uploaded_files/a.csv")?.toString()).toBe("x,y\n1,2\n");
    expect(store.files.get("/uploaded_files/empty.txt")?.length).toBe(0);
  });

  it("sends large files in pieces", async () => {
    const up = make();
    const content = bytes(3500);
    const [t] = await up.add("ses_1", [file("big.bin", content)]);
    await up.done(t?.id ?? "");
    expect(store.files.get("/uploaded_files/big.bin")?.equals(content)).toBe(true);
    expect(store.requests.filter((r) => r.startsWith("PUT")).map((r) => r.split(" ").at(-1))).toEqual([
      "0-999/3500",
      "1000-1999/3500",
      "2000-2999/3500",
      "3000-3499/3500",
    ]);
    expect(getTransfer(t?.id ?? "")?.sent).toBe(3500);
  });

  it("goes on after a cut from where the server has it", async () => {
    const up = make();
    const content = bytes(200_000);
    store.cuts = [70_000];
    const [t] = await make({ chunkBytes: 1 << 20 }).add("ses_1", [file("cut.bin", content)]);
    await vi.waitFor(() => expect(getTransfer(t?.id ?? "")).toMatchObject({ status: "done" }));
    expect(store.files.get("/uploaded_files/cut.bin")?.equals(content)).toBe(true);
    expect(store.requests).toContain("HEAD upload /uploaded_files/cut.bin");
    expect(store.requests.at(-1)).toBe("PUT content /uploaded_files/cut.bin bytes 70000-199999/200000");
    up.clear("ses_1");
    expect(useTransferStore.getState().transfers).toMatchObject([{ status: "done", hidden: true }]);
  });

  it("goes on after a reload when the same file is given again", async () => {
    const content = bytes(5000);
    const first = make({ attempts: 1 });
    store.refusals = [];
    store.cuts = [1e9, 1e9, 300];
    const [t] = await first.add("ses_1", [file("again.bin", content)]);
    await vi.waitFor(() => expect(state(t)).toBe("failed"));
    // The page is loaded again: nothing is left but the note.
    useTransferStore.setState({ transfers: [] });
    const second = make();
    second.recall("ses_1");
    expect(useTransferStore.getState().transfers).toMatchObject([
      { status: "interrupted", path: "/uploaded_files/again.bin", sent: 2000 },
    ]);
    store.requests.length = 0;
    const [again] = await second.add("ses_1", [file("again.bin", content)]);
    await second.done(again?.id ?? "");
    expect(store.files.get("/uploaded_files/again.bin")?.equals(content)).toBe(true);
    expect(store.requests.find((r) => r.startsWith("PUT"))).toBe(
      "PUT content /uploaded_files/again.bin bytes 2300-3299/5000",
    );
    second.recall("ses_1");
    expect(useTransferStore.getState().transfers.map((x) => x.status)).toEqual(["done"]);
  });

  it("asks what to do when the file exists, for one or for the whole drop", async () => {
    store.files.set("/uploaded_files/a.csv", Buffer.from("old a"));
    store.files.set("/uploaded_files/b.csv", Buffer.from("old b"));
    store.files.set("/uploaded_files/c.csv", Buffer.from("old c"));
    const up = make();
    const all = await up.add("ses_1", [
      file("a.csv", "new a"),
      file("b.csv", "new b"),
      file("c.csv", "new c"),
      file("d.csv", "new d"),
    ]);
    await vi.waitFor(() => expect(all.map(state)).toEqual(["asking", "asking", "asking", "done"]));
    up.decide(all[0]?.id ?? "", "overwrite");
    await vi.waitFor(() => expect(state(all[0])).toBe("done"));
    up.decide(all[1]?.id ?? "", "keep-both", true);
    expect(await up.done(all[1]?.id ?? "")).toBe("/uploaded_files/b-2.csv");
    expect(await up.done(all[2]?.id ?? "")).toBe("/uploaded_files/c-2.csv");
    const kept = Object.fromEntries([...store.files].map(([k, v]) => [k.slice(16), v.toString()]));
    expect(kept).toEqual({
      "a.csv": "new a",
      "b.csv": "old b",
      "c.csv": "old c",
      "d.csv": "new d",
      "b-2.csv": "new b",
      "c-2.csv": "new c",
    });
    const [skipped] = await up.add("ses_1", [file("a.csv", "newer")]);
    await vi.waitFor(() => expect(state(skipped)).toBe("asking"));
    up.decide(skipped?.id ?? "", "skip");
    expect(await up.done(skipped?.id ?? "")).toBeUndefined();
    expect(store.files.get("/uploaded_files/a.csv")?.toString()).toBe("new a");
  });

  it("asks too when the file came to be after it looked", async () => {
    store.files.set("/uploaded_files/a.csv", Buffer.from("old a"));
    store.blind = true;
    const up = make();
    const [t] = await up.add("ses_1", [file("a.csv", "new a")]);
    await vi.waitFor(() => expect(state(t)).toBe("asking"));
    up.decide(t?.id ?? "", "keep-both");
    expect(await up.done(t?.id ?? "")).toBe("/uploaded_files/a-2.csv");
  });

  it("says why the server refuses, and does not insist", async () => {
    const up = make();
    store.refusals = [
      { status: 413, body: { code: "file-too-large", detail: "big.csv is larger than 10 MB.", hint: "Send less." } },
    ];
    const [t] = await up.add("ses_1", [file("big.csv", "123")]);
    await up.done(t?.id ?? "");
    expect(getTransfer(t?.id ?? "")).toMatchObject({
      status: "failed",
      problem: { code: "file-too-large", hint: "Send less." },
    });
    expect(store.requests.filter((r) => r.startsWith("PUT"))).toHaveLength(1);
    up.retry(t?.id ?? "");
    await vi.waitFor(() => expect(getTransfer(t?.id ?? "")).toMatchObject({ status: "done" }));
  });

  it("tries again when the server is busy", async () => {
    const up = make();
    store.refusals = [{ status: 503 }, { status: 502 }];
    const [t] = await up.add("ses_1", [file("busy.csv", "123")]);
    await up.done(t?.id ?? "");
    expect(state(t)).toBe("done");
  });

  it("gives up after so many attempts that got nothing through", async () => {
    const up = make({ attempts: 3 });
    store.refusals = Array.from({ length: 9 }, () => ({
      status: 503,
      body: { code: "unavailable", detail: "No room." },
    }));
    const [t] = await up.add("ses_1", [file("never.csv", "123")]);
    await up.done(t?.id ?? "");
    expect(getTransfer(t?.id ?? "")).toMatchObject({ status: "failed", problem: { code: "unavailable" } });
    expect(store.refusals).toHaveLength(6);
  });

  it("sends three at once, and the rest after them", async () => {
    let open = () => {};
    store.gate = new Promise((resolve) => {
      open = resolve;
    });
    const up = make();
    const all = await up.add(
      "ses_1",
      ["1", "2", "3", "4", "5"].map((n) => file(`${n}.txt`, n)),
    );
    await vi.waitFor(() => expect(store.most).toBe(3));
    expect(all.map(state)).toEqual(["sending", "sending", "sending", "queued", "queued"]);
    open();
    await vi.waitFor(() => expect(all.map(state)).toEqual(all.map(() => "done")));
    expect(store.most).toBe(3);
  });

  it("is cancelled at once, and can be begun again", async () => {
    let open = () => {};
    store.gate = new Promise((resolve) => {
      open = resolve;
    });
    const up = make();
    const [t] = await up.add("ses_1", [file("stop.txt", "1")]);
    await vi.waitFor(() => expect(store.atOnce).toBe(1));
    up.cancel(t?.id ?? "");
    expect(await up.done(t?.id ?? "")).toBeUndefined();
    expect(state(t)).toBe("cancelled");
    await vi.waitFor(() => expect(store.atOnce).toBe(0));
    open();
    up.retry(t?.id ?? "");
    await vi.waitFor(() => expect(["done", "asking"]).toContain(state(t)));
  });

  it("waits while there is no network", async () => {
    online = false;
    const up = make();
    const [t] = await up.add("ses_1", [file("later.txt", "1")]);
    expect(state(t)).toBe("offline");
    online = true;
    up.wake();
    await vi.waitFor(() => expect(getTransfer(t?.id ?? "")).toMatchObject({ status: "done" }));
  });

  it("waits for the network in the middle of a file", async () => {
    const up = make({ chunkBytes: 1 << 20 });
    store.cuts = [100_000];
    let t: Transfer | undefined;
    const stop = useTransferStore.subscribe(() => {
      if (state(t) === "sending") online = false;
    });
    [t] = await up.add("ses_1", [file("tunnel.bin", bytes(300_000))]);
    await vi.waitFor(() => expect(state(t)).toBe("offline"));
    stop();
    online = true;
    window.dispatchEvent(new Event("online"));
    await vi.waitFor(() => expect(getTransfer(t?.id ?? "")).toMatchObject({ status: "done" }));
    expect(store.files.get("/uploaded_files/tunnel.bin")?.length).toBe(300_000);
  });
});
