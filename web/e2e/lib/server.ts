import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../..", import.meta.url));

export interface ServerOptions {
  /** "none" by default; "token" and "accounts" for tests of the login. */
  auth?: "none" | "token" | "accounts";
  /** More flags of `caesarion serve`. */
  args?: string[];
  /** More environment. Keys of model services are never taken over from the caller's. */
  env?: Record<string, string>;
  /** Text of a configuration file. */
  config?: string;
}

/** A running `caesarion serve` with a data directory of its own. */
export interface Server {
  readonly url: string; // without a slash at its end; the same after restart
  readonly token: string; // "" with auth none; with accounts the installation's
  /** With accounts: the link that makes the first user, as the server prints it. */
  readonly setup: string;
  readonly dataDir: string;
  readonly pid: number;
  /** What it wrote to its log so far. */
  log(): string;
  /** Calls the API with the token and gives the answer's JSON; throws for a problem. */
  api<T = unknown>(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<T>;
  /** Ends it as a crash would (SIGKILL). Sandboxes live on. */
  kill(): Promise<void>;
  /** Starts it again on the same address and data. */
  start(): Promise<void>;
  /** Ends it with its sandboxes and removes its data. */
  stop(): Promise<void>;
}

/** The server's program: CAESARION_BIN, or what `make build` built. */
export function binary(): string {
  const path = resolve(process.env.CAESARION_BIN ?? join(root, "bin/caesarion"));
  if (!existsSync(path)) throw new Error(`no server at ${path}: run make build, or set CAESARION_BIN`);
  return path;
}

async function freePort(): Promise<number> {
  return new Promise((done, fail) => {
    const probe = createServer();
    probe.once("error", fail);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => (address && typeof address === "object" ? done(address.port) : fail(new Error("no port"))));
    });
  });
}

/**
 * Starts a server on a free port. Images are not built again: the data
 * directory gets a link to those in CAESARION_IMAGES (by default where
 * `make image` puts them).
 */
export async function startServer(options: ServerOptions = {}): Promise<Server> {
  const dataDir = await mkdtemp(join(tmpdir(), "caesarion-e2e-"));
  const images = process.env.CAESARION_IMAGES ?? "/var/lib/caesarion/images";
  if (existsSync(images)) await symlink(images, join(dataDir, "images"));
  else await mkdir(join(dataDir, "images"));
  const listen = `127.0.0.1:${await freePort()}`;
  const auth = options.auth ?? "none";
  // The link that makes the first user is for people only.
  const people = auth === "accounts";
  const args = [
    "serve",
    ...(people ? [] : ["--json"]),
    "--listen",
    listen,
    "--data-dir",
    dataDir,
    "--auth",
    auth,
    "--on-exit",
    "delete",
  ];
  if (options.config !== undefined) {
    await writeFile(join(dataDir, "config.yaml"), options.config);
    args.push("--config", join(dataDir, "config.yaml"));
  }
  // For work on the page: what vite built into another folder, with the binary as it is.
  if (process.env.CAESARION_WEB_DIR) args.push("--web-dir", process.env.CAESARION_WEB_DIR);
  args.push(...(options.args ?? []));

  const env: Record<string, string | undefined> = { ...process.env, ...options.env };
  for (const name of Object.keys(env)) {
    const ours = options.env && name in options.env;
    if (!ours && (name.startsWith("CAESARION_") || name.startsWith("OPENAI_"))) delete env[name];
  }

  let child: ChildProcess | undefined;
  let token = "";
  let setup = "";
  let log = "";

  async function start(): Promise<void> {
    const running = spawn(binary(), args, { env, stdio: ["ignore", "pipe", "pipe"] });
    child = running;
    running.stderr?.on("data", (data: Buffer) => {
      log += data.toString();
    });
    let out = "";
    await new Promise<void>((done, fail) => {
      const failed = (why: string) => fail(new Error(`the server did not start: ${why}\n${log}`));
      const timer = setTimeout(() => failed("no word in 60 s"), 60_000);
      running.once("error", (err) => failed(err.message));
      running.once("exit", (code) => failed(`exit ${code}`));
      running.stdout?.on("data", (data: Buffer) => {
        out += data.toString();
        if (people) {
          setup = /http:\S+/.exec(out)?.[0] ?? "";
          if (!out.endsWith("\n\n") || setup === "") return; // not whole yet
          clearTimeout(timer);
          done();
          return;
        }
        let said: { url?: string; token?: string };
        try {
          said = JSON.parse(out);
        } catch {
          return; // not whole yet
        }
        if (!said.url) {
          failed(out); // what it says when it ends at once
          return;
        }
        token = said.token ?? "";
        clearTimeout(timer);
        done();
      });
    });
    running.removeAllListeners("exit");
    if (people) token = (await readFile(join(dataDir, "token"), "utf8")).trim();
  }

  async function end(signal: NodeJS.Signals): Promise<void> {
    const running = child;
    if (!running || running.exitCode !== null || running.signalCode !== null) return;
    const gone = new Promise<void>((done) => running.once("exit", () => done()));
    running.kill(signal);
    await gone;
  }

  await start();
  const url = `http://${listen}`;
  return {
    url,
    dataDir,
    get token() {
      return token;
    },
    get setup() {
      return setup;
    },
    get pid() {
      return child?.pid ?? 0;
    },
    log: () => log,
    async api<T>(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<T> {
      const raw = typeof body === "string" || body instanceof Uint8Array;
      const response = await fetch(url + path, {
        method,
        headers: {
          ...(body !== undefined && !raw ? { "Content-Type": "application/json" } : {}),
          ...(token ? { Authorization: `Bearer ${token}` } : {}),
          ...headers,
        },
        body: body === undefined ? undefined : raw ? (body as string) : JSON.stringify(body),
      });
      const text = await response.text();
      if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
      return (text === "" ? undefined : JSON.parse(text)) as T;
    },
    kill: () => end("SIGKILL"),
    start,
    async stop() {
      await end("SIGTERM");
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** A file of the repository, as text. */
export function repositoryFile(path: string): Promise<string> {
  return readFile(join(root, path), "utf8");
}
