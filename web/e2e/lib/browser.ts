import { existsSync } from "node:fs";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import type { Server } from "./server";

export type { Browser, BrowserContext, Page };

const paths = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** Starts Debian's Chromium, or the one that CHROMIUM names. */
export async function startBrowser(): Promise<Browser> {
  const executablePath = paths.find((path) => path && existsSync(path));
  if (!executablePath) throw new Error("no Chromium: apt-get install chromium, or set CHROMIUM");
  return chromium.launch({
    executablePath,
    args: [
      "--no-sandbox", // as root, as the server needs it here
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

export interface PageOptions {
  dark?: boolean;
  /** Default 1280 × 800; phone: 390 × 844 with touch. */
  size?: "desktop" | "phone";
  language?: "en" | "de";
  /** Default: what the server printed, handed over as a person's browser gets it. */
  login?: boolean;
}

/** A page of its own profile, with all that went wrong on it. */
export interface Visit {
  page: Page;
  context: BrowserContext;
  /** Messages of console.error and uncaught exceptions of the page itself (not of frames of outputs). */
  errors: string[];
  /** Goes to a path of the server. */
  open(path?: string): Promise<void>;
  close(): Promise<void>;
}

// The hash of a style that Chromium itself tries to put on what is typed over a
// selection in an editor, and that the page's policy refuses: nobody misses it.
const editing = "sha256-SfF97N0NqHM5KRHLyZ2xfml1oF5MD7BNmPQiHxcCGso=";

export async function visit(browser: Browser, server: Server, options: PageOptions = {}): Promise<Visit> {
  const phone = options.size === "phone";
  const context = await browser.newContext({
    baseURL: server.url,
    colorScheme: options.dark ? "dark" : "light",
    viewport: phone ? { width: 390, height: 844 } : { width: 1280, height: 800 },
    hasTouch: phone,
    isMobile: phone,
    locale: options.language ?? "en",
    reducedMotion: "reduce",
  });
  const page = await context.newPage();
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => {
    if (message.text().includes(editing)) return;
    if (message.type() === "error" && !message.location().url.includes("/frame/")) errors.push(message.text());
  });
  if (server.token && !server.setup && options.login !== false) {
    const answer = await context.request.post("/v1/login", { data: { token: server.token } });
    if (!answer.ok()) throw new Error(`login: ${answer.status()} ${await answer.text()}`);
  }
  return {
    page,
    context,
    errors,
    async open(path = "/") {
      await page.goto(path);
    },
    close: () => context.close(),
  };
}
