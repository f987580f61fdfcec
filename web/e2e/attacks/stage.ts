import { createSocket } from "node:dgram";
import { createServer, type Server as HTTPServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { expect } from "vitest";
import type { Output } from "../../src/api/types";
import {
  type Browser,
  html,
  importSession,
  type NotebookCell,
  type Page,
  type Server,
  sessionURL,
  startBrowser,
  startServer,
  until,
  type Visit,
  visit,
} from "../lib";

/** A foreign server that hears what gets out. Its name is another site than the page's. */
export interface Foreign {
  url: string;
  heard: string[];
  close(): Promise<void>;
}

export async function startForeign(): Promise<Foreign> {
  const heard: string[] = [];
  const server: HTTPServer = createServer((request: IncomingMessage, response) => {
    heard.push(`${request.method} ${request.url}`);
    response.setHeader("Access-Control-Allow-Origin", "*");
    response.end("heard");
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  server.on("connection", () => heard.push("connection"));
  const datagrams = createSocket("udp4");
  datagrams.on("message", () => heard.push("datagram"));
  await new Promise<void>((done) => datagrams.bind(port, "127.0.0.1", done));
  return {
    url: `http://localhost:${port}`,
    heard,
    close: () =>
      new Promise((done) => {
        datagrams.close();
        server.closeAllConnections();
        server.close(() => done());
      }),
  };
}

/** A server that needs a token, a browser that has its cookie, and somebody who listens. */
export class Stage {
  server!: Server;
  browser!: Browser;
  foreign!: Foreign;

  async open(): Promise<void> {
    [this.server, this.browser, this.foreign] = await Promise.all([
      startServer({ auth: "token", args: ["--log-level", "debug"] }),
      startBrowser(),
      startForeign(),
    ]);
  }

  async close(): Promise<void> {
    await this.browser?.close();
    await this.foreign?.close();
    await this.server?.stop();
  }

  /** Opens a session with these cells and watches all that must not happen. */
  async perform(cells: NotebookCell[], options: { dark?: boolean } = {}): Promise<Scene> {
    const id = await importSession(this.server, "attack", cells);
    const scene = new Scene(this, id, await visit(this.browser, this.server, options));
    await scene.begin();
    return scene;
  }

  async sessions(): Promise<string[]> {
    const list = await this.server.api<{ sessions: { id: string }[] }>("GET", "/v1/sessions?limit=100");
    return list.sessions.map((session) => session.id).sort();
  }
}

/** What an attack's script tried, and what came of it. */
export type Results = Record<string, string>;

/**
 * An HTML output that tries things. `attempt(name, f)` notes what f gave or
 * that it threw; what they gave is read from the frame, so that a test knows
 * that its attack ran.
 */
export function attack(script: string, markup = ""): Output {
  return html(`${markup}<p>attack</p><script>
    window.outcome = {};
    const attempt = async (name, f) => {
      try { outcome[name] = "did: " + String(await f()); } catch (e) { outcome[name] = "threw: " + e.name; }
    };
    (async () => { ${script}
      window.results = outcome;
    })();
  </script>`);
}

export class Scene {
  readonly stage: Stage;
  readonly session: string;
  readonly visit: Visit;
  readonly page: Page;
  /** Dialogs, downloads, windows: none may come. */
  readonly happened: string[] = [];
  /** Answers that a frame got, beside its document. */
  readonly answers: string[] = [];
  private before: string[] = [];
  private address = "";

  constructor(stage: Stage, session: string, visit: Visit) {
    this.stage = stage;
    this.session = session;
    this.visit = visit;
    this.page = visit.page;
  }

  async begin(): Promise<void> {
    const { page } = this;
    this.stage.foreign.heard.length = 0;
    page.on("dialog", (dialog) => {
      this.happened.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    page.on("download", (download) => this.happened.push(`download: ${download.url()}`));
    this.visit.context.on("page", (other) => this.happened.push(`window: ${other.url()}`));
    this.visit.context.on("response", (response) => {
      const from = response.request().serviceWorker() ? null : response.frame();
      if (from === page.mainFrame() && response.request().frame() === from) return;
      if (new URL(response.url()).pathname === "/frame/" && response.status() === 200) return;
      if (/^(data|blob):/.test(response.url())) return;
      this.answers.push(`${response.status()} ${response.url()}`);
    });
    await page.addInitScript(() => {
      // Marks of the page's own window, which an attack would change.
      if (window.top === window) Object.assign(window, { untouched: true });
    });
    this.before = await this.stage.sessions();
    this.address = sessionURL(this.stage.server, this.session);
    await page.goto(this.address);
    await until("the outputs", () => page.locator("[role=group][aria-label=Outputs]").first().isVisible());
  }

  /** Waits until an attack has run in its frame, and gives what came of it. */
  async results(): Promise<Results> {
    return until("the attack's results", async () => {
      for (const frame of this.page.frames()) {
        if (!frame.url().includes("/frame/")) continue;
        const found = await frame.evaluate(() => (window as { results?: Results }).results).catch(() => undefined);
        if (found) return found;
      }
      return undefined;
    });
  }

  text(): Promise<string> {
    // biome-ignore lint/performance/useDomNodeTextContent: what a person sees, not what is hidden
    return this.page.locator("body").innerText();
  }

  /** Waits for a note that the page shows. */
  note(pattern: RegExp): Promise<void> {
    return until(String(pattern), async () => {
      for (const text of await this.page.getByRole("note").allInnerTexts()) if (pattern.test(text)) return true;
      return false;
    }).then(() => undefined);
  }

  /** Nothing happened, and the page still answers. */
  async unharmed(options: { answers?: (answer: string) => boolean } = {}): Promise<void> {
    const { page } = this;
    expect(page.url()).toBe(this.address);
    expect(this.happened).toEqual([]);
    expect(this.visit.context.pages().length).toBe(1);
    expect(this.stage.foreign.heard).toEqual([]);
    expect(this.answers.filter((answer) => !options.answers?.(answer))).toEqual([]);
    const start = Date.now();
    const state = await page.evaluate(() => {
      const corner = document.elementFromPoint(8, 8);
      const wide = [...document.querySelectorAll("iframe")].map((f) => f.getBoundingClientRect());
      return {
        untouched: (window as { untouched?: boolean }).untouched,
        pwned: (window as { pwned?: unknown }).pwned,
        cornerIsFrame: corner instanceof HTMLIFrameElement,
        sideways: document.documentElement.scrollWidth > innerWidth,
        covered: wide.some((r) => r.width >= innerWidth || r.left < 0 || r.right > innerWidth),
        workers: "serviceWorker" in navigator,
      };
    });
    expect(state).toMatchObject({ untouched: true, cornerIsFrame: false, sideways: false, covered: false });
    expect(state.pwned).toBeUndefined();
    expect(Date.now() - start).toBeLessThan(2000);
    const workers = await page.evaluate(async () => (await navigator.serviceWorker?.getRegistrations())?.length ?? 0);
    expect(workers).toBe(0);
    expect(await this.stage.sessions()).toEqual(this.before);
  }

  async end(): Promise<void> {
    await this.visit.close();
  }
}
