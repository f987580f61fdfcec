import { sessionPath, withQuery } from "@/api/client";
import { lasting, offsetOf, problemOf, retried } from "./answers";
import { type Collected, collect, type Given } from "./collect";
import { Meter } from "./meter";
import { base, freeName, join, parent, uploadDir } from "./paths";
import { forgetUnfinished, noteUnfinished, readable, unfinishedUploads, uploadId } from "./resume";
import {
  addTransfers,
  dropTransfers,
  getTransfer,
  type Origin,
  patchTransfer,
  type Transfer,
  type TransferProblem,
  unfinished,
  useTransferStore,
} from "./transfers";
import { type Answer, CutError, type Send, send } from "./transport";

export type Items = DataTransferItemList | File[] | Collected;

/** How a person answers when the target exists. */
export type Choice = "overwrite" | "keep-both" | "skip";

export interface UploaderOptions {
  send: Send;
  /** Sent in one request; a larger file goes in several. What a cut can cost at most. */
  chunkBytes: number;
  parallel: number;
  /** Before the n-th attempt in a row that got nothing through. */
  backoffMs: (attempt: number) => number;
  attempts: number;
  stallMs: number;
  online: () => boolean;
  origin: string;
}

const defaults: UploaderOptions = {
  send,
  chunkBytes: 8 << 20,
  parallel: 3,
  backoffMs: (n) => Math.min(15_000, 500 * 2 ** (n - 1)) * (0.75 + Math.random() / 2),
  attempts: 10, // more than a minute together: so long a server may take to see that a connection is dead
  stallMs: 45_000,
  online: () => navigator.onLine !== false,
  origin: "",
};

interface Job {
  id: string;
  file: File;
  choice?: Choice;
  /** Paths that the server refused because they exist. */
  taken: Set<string>;
  abort?: AbortController;
  settle: (path: string | undefined) => void;
  done: Promise<string | undefined>;
}

/** A person stopped it. */
class Stop extends Error {}

function alive(job: Job): void {
  if (job.abort?.signal.aborted) throw new Stop();
}

/** It will not come to be without somebody changing something. */
class Refused extends Error {
  constructor(readonly problem: TransferProblem) {
    super(problem.detail);
  }
}

function listingKey(t: Transfer): string {
  return `${t.batch}\0${parent(t.path)}`;
}

/** Sends files: several at once, in resumable pieces, over cuts and reloads. */
export class Uploader {
  private readonly o: UploaderOptions;
  private readonly jobs = new Map<string, Job>();
  private readonly running = new Set<string>();
  private readonly choices = new Map<string, Choice>(); // batch → answer for all of it
  private readonly listings = new Map<string, Promise<Set<string>>>(); // batch and folder → names in it
  private count = 0;

  constructor(options: Partial<UploaderOptions> = {}) {
    this.o = { ...defaults, ...options };
  }

  /** Takes files or a drop. Answers once they are listed; see done for the end. */
  async add(sessionId: string, items: Items, dir = uploadDir, origin: Origin = "program"): Promise<Transfer[]> {
    const collecting = "folders" in items ? items : collect(items); // before any await: a drop's list is gone afterwards
    const { files, folders } = await collecting;
    const batch = `batch-${++this.count}`;
    for (const folder of folders) void this.makeFolder(sessionId, join(dir, folder));
    return this.enqueue(sessionId, batch, dir, files, origin);
  }

  private enqueue(sessionId: string, batch: string, dir: string, files: Given[], origin: Origin): Transfer[] {
    const transfers = files.map(({ file, relative }): Transfer => {
      const id = `upload-${++this.count}`;
      let settle: Job["settle"] = () => {};
      const done = new Promise<string | undefined>((resolve) => {
        settle = resolve;
      });
      this.jobs.set(id, { id, file, settle, done, taken: new Set() });
      const path = join(dir, relative);
      return {
        id,
        sessionId,
        batch,
        name: relative,
        path,
        size: file.size,
        sent: 0,
        rate: 0,
        status: "queued",
        origin,
      };
    });
    const paths = new Set(transfers.map((t) => t.path));
    dropTransfers((t) => t.status === "interrupted" && t.sessionId === sessionId && paths.has(t.path));
    addTransfers(transfers);
    this.pump();
    return transfers;
  }

  /** The path it got, or undefined if it did not arrive. */
  done(id: string): Promise<string | undefined> {
    return this.jobs.get(id)?.done ?? Promise.resolve(undefined);
  }

  cancel(id: string): void {
    const job = this.jobs.get(id);
    const t = getTransfer(id);
    if (!t || t.status === "done") return;
    if (t.status === "interrupted") {
      forgetUnfinished(t.sessionId, id.slice("interrupted-".length));
      dropTransfers((x) => x.id === id);
      return;
    }
    patchTransfer(id, { status: "cancelled", rate: 0, problem: undefined });
    job?.abort?.abort(new Stop());
    job?.settle(undefined);
    this.pump();
  }

  retry(id: string): void {
    const t = getTransfer(id);
    const job = this.jobs.get(id);
    if (!t || !job || (t.status !== "failed" && t.status !== "cancelled" && t.status !== "skipped")) return;
    if (t.status !== "failed") {
      job.done = new Promise((resolve) => {
        job.settle = resolve;
      });
    }
    patchTransfer(id, { status: "queued", problem: undefined });
    this.pump();
  }

  /** Answers "it exists already", for one or for all of the same drop. */
  decide(id: string, choice: Choice, all = false): void {
    const t = getTransfer(id);
    if (!t) return;
    if (all) this.choices.set(t.batch, choice);
    const asked = useTransferStore
      .getState()
      .transfers.filter((x) => x.status === "asking" && (all ? x.batch === t.batch : x.id === id));
    for (const x of asked) {
      const job = this.jobs.get(x.id);
      if (!job) continue;
      job.choice = choice;
      patchTransfer(x.id, { status: "queued", problem: undefined });
    }
    this.pump();
  }

  /** Takes what is over from the list. What may yet go with a message is only hidden. */
  clear(sessionId: string): void {
    const over = (t: Transfer) => t.sessionId === sessionId && !unfinished.has(t.status) && t.status !== "interrupted";
    dropTransfers((t) => {
      const gone = over(t) && (t.origin === "panel" || t.status !== "done");
      if (gone) this.jobs.delete(t.id);
      return gone;
    });
    for (const t of useTransferStore.getState().transfers)
      if (over(t) && !t.hidden) patchTransfer(t.id, { hidden: true });
  }

  /** Lists what an earlier page of this session did not finish. */
  recall(sessionId: string): void {
    const known = useTransferStore.getState().transfers;
    const lost = unfinishedUploads(sessionId).filter(
      (u) => !known.some((t) => t.sessionId === sessionId && (t.id === `interrupted-${u.id}` || t.path === u.path)),
    );
    addTransfers(
      lost.map((u) => ({
        id: `interrupted-${u.id}`,
        sessionId,
        batch: "interrupted",
        origin: "recalled",
        name: u.name,
        path: u.path,
        size: u.size,
        sent: u.sent,
        rate: 0,
        status: "interrupted",
      })),
    );
  }

  /** Goes on with what waits for the network. */
  wake(): void {
    if (!this.o.online()) return;
    for (const t of useTransferStore.getState().transfers) {
      if (t.status === "offline" && this.jobs.has(t.id) && !this.running.has(t.id))
        patchTransfer(t.id, { status: "queued" });
    }
    this.pump();
  }

  private pump(): void {
    for (const t of useTransferStore.getState().transfers) {
      if (this.running.size >= this.o.parallel) return;
      const job = this.jobs.get(t.id);
      if (t.status !== "queued" || !job || this.running.has(t.id)) continue;
      if (!this.o.online()) {
        patchTransfer(t.id, { status: "offline" });
        continue;
      }
      this.running.add(t.id);
      void this.run(t, job).finally(() => {
        this.running.delete(t.id);
        this.pump();
      });
    }
  }

  private async run(t: Transfer, job: Job): Promise<void> {
    const abort = new AbortController();
    job.abort = abort;
    try {
      const path = await this.target(t, job);
      if (path) await this.transmit({ ...t, path }, job);
    } catch (err) {
      if (abort.signal.aborted) return; // cancelled, and marked so
      const problem = err instanceof Refused ? err.problem : { code: "upload-failed", detail: String(err) };
      if (problem.code === "file-exists" && this.answer(t, job) !== "overwrite") {
        // It came to be since we looked. Now it is asked about, or gets another name.
        job.taken.add(getTransfer(t.id)?.path ?? t.path);
        patchTransfer(t.id, { status: "queued", rate: 0, sent: 0, path: t.path });
        return;
      }
      patchTransfer(t.id, { status: "failed", rate: 0, problem });
      job.settle(undefined);
    }
  }

  private answer(t: Transfer, job: Job): Choice | undefined {
    return job.choice ?? this.choices.get(t.batch);
  }

  /** Where it goes; undefined if it waits for an answer or is not wanted. */
  private async target(t: Transfer, job: Job): Promise<string | undefined> {
    const choice = this.answer(t, job);
    if (choice === "overwrite") return t.path;
    patchTransfer(t.id, { status: "checking" });
    const dir = parent(t.path);
    const names = await this.names(t, dir, job);
    alive(job);
    const taken = (name: string) =>
      names.has(name) ||
      job.taken.has(join(dir, name)) ||
      useTransferStore
        .getState()
        .transfers.some(
          (x) => x.id !== t.id && x.sessionId === t.sessionId && x.path === join(dir, name) && unfinished.has(x.status),
        );
    if (!names.has(base(t.path)) && !job.taken.has(t.path)) return t.path;
    switch (choice) {
      case "keep-both": {
        const path = join(dir, freeName(base(t.path), taken));
        patchTransfer(t.id, { path });
        return path;
      }
      case "skip":
        patchTransfer(t.id, { status: "skipped" });
        job.settle(undefined);
        return undefined;
      default:
        patchTransfer(t.id, { status: "asking" });
        return undefined;
    }
  }

  /** Names in a folder, asked for once a drop: a dropped folder may hold thousands of files. */
  private async names(t: Transfer, dir: string, job: Job): Promise<Set<string>> {
    const key = listingKey(t);
    for (;;) {
      alive(job);
      let listing = this.listings.get(key);
      if (!listing) {
        listing = this.list(t, dir, job).catch((err) => {
          this.listings.delete(key);
          throw err;
        });
        this.listings.set(key, listing);
      }
      try {
        return await listing;
      } catch (err) {
        // Another file of the drop asked and was cancelled: ask again.
        if (!(err instanceof Stop)) throw err;
      }
    }
  }

  private async list(t: Transfer, dir: string, job: Job): Promise<Set<string>> {
    const answer = await this.patiently(t, job, () =>
      this.o.send({ method: "GET", url: this.url(t.sessionId, "", dir) }),
    );
    if (answer.status === 404) return new Set();
    if (answer.status >= 400) throw new Refused(problemOf(answer));
    const folder = JSON.parse(answer.text) as { entries?: { name: string }[] };
    return new Set((folder.entries ?? []).map((e) => e.name));
  }

  private url(sessionId: string, route: string, path: string): string {
    return this.o.origin + withQuery(sessionPath(sessionId, "files", ...(route ? [route] : [])), { path });
  }

  private async makeFolder(sessionId: string, path: string): Promise<void> {
    const url = this.o.origin + sessionPath(sessionId, "files", "mkdir");
    const headers = { "Content-Type": "application/json" };
    await this.o.send({ method: "POST", url, headers, body: JSON.stringify({ path }) }).catch(() => undefined);
  }

  private async transmit(t: Transfer, job: Job): Promise<void> {
    const { file } = job;
    const headers: Record<string, string> = { "Content-Type": "application/octet-stream" };
    let id: string;
    try {
      id = await uploadId(file, t.path);
    } catch {
      throw new Refused(unreadable);
    }
    alive(job);
    headers["Upload-Id"] = id;
    const several = file.size > this.o.chunkBytes;
    const noted = () =>
      noteUnfinished(t.sessionId, { id, path: t.path, name: t.name, size: file.size, sent, at: Date.now() });
    let sent = 0;
    // A small file is sent without asking first; if that is cut, it is asked then.
    let ask = several;
    const meter = new Meter((rate, bytes) => patchTransfer(t.id, { sent: bytes, rate }));
    patchTransfer(t.id, { status: "sending", sent: 0 });
    const signal = job.abort?.signal;

    const step = async (): Promise<Answer> => {
      if (ask) {
        sent = await this.received(t, id, signal);
        if (sent > file.size) sent = 0;
        ask = false;
        meter.at(sent);
      }
      patchTransfer(t.id, { status: "sending", problem: undefined });
      const whole = file.size === 0;
      const end = Math.min(file.size, sent + this.o.chunkBytes);
      const range: Record<string, string> = whole ? {} : { "Content-Range": `bytes ${sent}-${end - 1}/${file.size}` };
      if (sent === file.size && !whole) range["Content-Range"] = `bytes */${file.size}`;
      try {
        return await this.o.send({
          method: "PUT",
          url:
            this.url(t.sessionId, "content", t.path) + (this.answer(t, job) === "overwrite" ? "&overwrite=true" : ""),
          headers: { ...headers, ...range },
          body: whole ? new Blob([]) : file.slice(sent, end),
          signal,
          onProgress: (bytes) => meter.at(Math.min(end, sent + bytes)),
          stallMs: this.o.stallMs,
        });
      } catch (err) {
        ask = !whole;
        if (err instanceof CutError && !(await readable(file))) throw new Refused(unreadable);
        throw err;
      }
    };

    let lostPlace = 0;
    for (;;) {
      const answer = await this.patiently(t, job, step, () => {
        ask = file.size > 0;
      });
      if (answer.status === 308) {
        const before = sent;
        sent = offsetOf(answer);
        lostPlace = sent > before ? 0 : lostPlace + 1;
        if (lostPlace > this.o.attempts) throw new Refused(problemOf(answer));
        meter.at(sent);
        if (several) noted();
        continue;
      }
      if (answer.status >= 200 && answer.status < 300) break;
      const problem = problemOf(answer);
      // The server knows another offset than we do: ask and go on from there.
      if ((problem.code === "upload-offset" || answer.status === 416) && ++lostPlace <= this.o.attempts) {
        ask = true;
        continue;
      }
      throw new Refused(problem);
    }
    forgetUnfinished(t.sessionId, id);
    const listing = this.listings.get(listingKey(t));
    if (listing) void listing.then((names) => names.add(base(t.path)));
    patchTransfer(t.id, { status: "done", sent: file.size, rate: 0, path: t.path, problem: undefined });
    job.settle(t.path);
  }

  /** How much of an upload the server has. */
  private async received(t: Transfer, id: string, signal?: AbortSignal): Promise<number> {
    const answer = await this.o.send({
      method: "HEAD",
      url: this.url(t.sessionId, "upload", t.path),
      headers: { "Upload-Id": id },
      signal,
      stallMs: this.o.stallMs,
    });
    if (retried.has(answer.status)) throw new CutError(`HTTP ${answer.status}`);
    return answer.status < 400 ? offsetOf(answer) : 0;
  }

  /** Tries until there is an answer that means something: over cuts, busy servers and no network. */
  private async patiently(t: Transfer, job: Job, step: () => Promise<Answer>, cut?: () => void): Promise<Answer> {
    const before = () => getTransfer(t.id)?.sent ?? 0;
    for (let attempt = 1, had = before(); ; attempt++) {
      alive(job);
      let problem: TransferProblem = { code: "connection-cut", detail: "" };
      let after: number | undefined;
      try {
        const answer = await step();
        problem = answer.status >= 400 ? problemOf(answer) : problem;
        const again = retried.has(answer.status) || problem.code === "upload-busy"; // a cut request that the server still reads
        if (!again || lasting.has(problem.code)) return answer;
        const seconds = Number(answer.header("Retry-After"));
        if (seconds > 0 && seconds < 120) after = seconds * 1000;
      } catch (err) {
        if (!(err instanceof CutError)) throw err;
      }
      cut?.();
      const has = before();
      if (has > had) attempt = 1; // something got through
      had = has;
      if (attempt >= this.o.attempts) throw new Refused(problem);
      await this.pause(t, job, after ?? this.o.backoffMs(attempt), problem);
    }
  }

  private async pause(t: Transfer, job: Job, ms: number, problem: TransferProblem): Promise<void> {
    const signal = job.abort?.signal;
    const asleep = (arm: (wake: () => void) => () => void) =>
      new Promise<void>((resolve, reject) => {
        const stop = () => {
          disarm();
          reject(new Stop());
        };
        const disarm = arm(() => {
          signal?.removeEventListener("abort", stop);
          resolve();
        });
        signal?.addEventListener("abort", stop, { once: true });
      });
    if (this.o.online()) {
      patchTransfer(t.id, { status: "retrying", rate: 0, problem });
      await asleep((wake) => {
        const timer = setTimeout(wake, ms);
        return () => clearTimeout(timer);
      });
    }
    while (!this.o.online()) {
      patchTransfer(t.id, { status: "offline", rate: 0, problem: undefined });
      await asleep((wake) => {
        addEventListener("online", wake, { once: true });
        return () => removeEventListener("online", wake);
      });
    }
  }
}

const unreadable: TransferProblem = { code: "file-unreadable", detail: "" };

/** The page's own. */
export const uploader = new Uploader();

if (typeof window !== "undefined") {
  addEventListener("online", () => uploader.wake());
  addEventListener("beforeunload", (event) => {
    const busy = useTransferStore
      .getState()
      .transfers.some((t) => t.status === "sending" || t.status === "retrying" || t.status === "queued");
    if (busy) event.preventDefault(); // the browser asks whether to leave
  });
}

/** Sends files or a drop to a session; the answer lists them, `uploader.done(id)` tells where each ended. */
export function uploadFiles(sessionId: string, items: Items, dir = uploadDir, origin?: Origin): Promise<Transfer[]> {
  return uploader.add(sessionId, items, dir, origin);
}
