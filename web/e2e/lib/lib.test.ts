import { afterAll, beforeAll, expect, test } from "vitest";
import { type Browser, type Server, startBrowser, startServer, until, visit } from ".";

let server: Server;
let browser: Browser;

beforeAll(async () => {
  [server, browser] = await Promise.all([startServer({ auth: "token" }), startBrowser()]);
});
afterAll(async () => {
  await browser?.close();
  await server?.stop();
});

test("a server answers on its address, before and after a crash", async () => {
  const before = server.pid;
  expect(await server.api("GET", "/v1/sandboxes")).toMatchObject({ sandboxes: [] });
  await server.kill();
  await expect(fetch(`${server.url}/health`)).rejects.toThrow();
  await server.start();
  expect(server.pid).not.toBe(before);
  expect((await fetch(`${server.url}/health`)).status).toBe(200);
});

test("a browser opens it", async () => {
  const { page, open, close } = await visit(browser, server, { login: false, dark: true });
  await open("/health");
  await until("an answer", async () => (await page.textContent("body"))?.includes("{"));
  expect(await page.evaluate(() => matchMedia("(prefers-color-scheme: dark)").matches)).toBe(true);
  await close();
});
