/**
 * What browser tests need: a real server, a real browser, and waiting for
 * conditions.
 *
 *     import { importSession, html, startBrowser, startServer, until, visit } from "../lib";
 *
 *     const server = await startServer();             // built binary, own data, free port; auth none
 *     const browser = await startBrowser();           // Chromium
 *     const id = await importSession(server, "title", [{ code: "1", outputs: [html("<b>hi</b>")] }]);
 *     const { page, errors, close } = await visit(browser, server, { dark: true });
 *     await page.goto(sessionURL(server, id));
 *     …
 *     await close(); await browser.close(); await server.stop();
 *
 * Put start in beforeAll and stop in afterAll. `server.kill()` and
 * `server.start()` are a crash and a restart on the same data. Run with
 * `npx vitest run --config e2e/vitest.config.ts [part of a file's name]`;
 * CAESARION_BIN names another binary, CAESARION_WEB_DIR a page built elsewhere
 * (vite build --outDir), CAESARION_IMAGES other images, CHROMIUM another browser.
 */
export * from "./axe";
export * from "./browser";
export * from "./issuer";
export * from "./model";
export * from "./notebook";
export * from "./server";
export * from "./thread";
export * from "./until";

import type { Server } from "./server";

/** The address of a session's page. */
export function sessionURL(server: Pick<Server, "url">, id: string): string {
  return `${server.url}/s/${id}`;
}
export * from "./people";
