// Everybody can use it: on a phone, in the dark, by ear, in German.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { AxeResults } from "axe-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type Browser,
  importSession,
  type Page,
  type ScriptedModel,
  type Server,
  sessionURL,
  startBrowser,
  startModel,
  startServer,
  stream,
  thread,
  visit,
} from "./lib";

let model: ScriptedModel;
let server: Server;
let browser: Browser;
let session: string;
let axe: string;

beforeAll(async () => {
  model = await startModel();
  server = await startServer({ env: model.env });
  browser = await startBrowser();
  axe = await readFile(fileURLToPath(new URL("../node_modules/axe-core/axe.min.js", import.meta.url)), "utf8");
  session = await importSession(server, "Figures", [
    {
      markdown:
        "# A title\n\nSome *text* with a [link](https://example.org) and $x^2$.\n\n| a | b |\n|---|---|\n| 1 | 2 |",
    },
    { code: "print('hello')", outputs: [stream("hello\n")] },
    {
      code: "1/0",
      outputs: [
        {
          output_type: "error",
          ename: "ZeroDivisionError",
          evalue: "division by zero",
          traceback: ["Traceback (most recent call last)", "ZeroDivisionError: division by zero"],
        },
      ],
    },
  ]);
});
afterAll(async () => {
  await browser?.close();
  await server?.stop();
  await model?.stop();
});

/** Serious and critical findings of axe, with where they are. */
async function findings(page: Page): Promise<string[]> {
  // Through the debugger, which the page's policy does not bind.
  await page.evaluate(axe);
  const results = (await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")) as AxeResults;
  return results.violations
    .filter((v) => v.impact === "serious" || v.impact === "critical")
    .map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 160)).join(" | ")}`);
}

const looks = [
  { name: "light", dark: false, size: "desktop" },
  { name: "dark", dark: true, size: "desktop" },
  { name: "phone", dark: false, size: "phone" },
  { name: "phone in the dark", dark: true, size: "phone" },
] as const;

describe.each(looks)("$name", ({ dark, size }) => {
  test("the first page and a session have no serious finding, and nothing is cut off", async () => {
    const { page, open, errors, close } = await visit(browser, server, { dark, size });
    await open();
    await thread(page).composer.waitFor();
    expect(await findings(page)).toEqual([]);
    await page.goto(sessionURL(server, session));
    await thread(page).cell(1).getByText("ZeroDivisionError").first().waitFor();
    expect(await findings(page)).toEqual([]);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    expect(wide, "pixels the page is wider than the screen").toBeLessThanOrEqual(0);
    const background = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    const [red = 0] = background.match(/\d+/g)?.map(Number) ?? [];
    if (background.startsWith("rgb")) expect(red < 128).toBe(dark);
    expect(errors).toEqual([]);
    await close();
  });
});

test("on a phone a question is asked and answered", async () => {
  const { page, open, close } = await visit(browser, server, { size: "phone" });
  await open();
  const t = thread(page);
  await t.composer.fill("Do two things at once");
  await page.getByRole("button", { name: "Send", exact: true }).tap();
  await t.answered();
  await t.cell(1).getByText("285").waitFor();
  await close();
});

test("in German", async () => {
  const { page, open, close } = await visit(browser, server, { language: "de" });
  await open();
  await page.getByRole("button", { name: "Neue Sitzung" }).first().waitFor();
  expect(await page.evaluate(() => document.documentElement.lang)).toBe("de");
  await close();
});

test("with the token only: who has none is asked for it", async () => {
  const guarded = await startServer({ auth: "token" });
  try {
    const { page, open, close } = await visit(browser, guarded, { login: false });
    await open();
    const field = page.getByLabel(/token/i).first();
    await field.fill("wrong");
    await field.press("Enter");
    await page.getByRole("alert").getByText(/./).waitFor();
    await field.fill(guarded.token);
    await field.press("Enter");
    await page.getByRole("button", { name: "New session" }).first().waitFor();
    // The page's scripts can't read what keeps them signed in.
    expect(await page.evaluate(() => document.cookie)).toBe("");
    await close();
    const linked = await visit(browser, guarded, { login: false });
    await linked.open(`/?token=${guarded.token}`);
    await linked.page.getByRole("button", { name: "New session" }).first().waitFor();
    expect(linked.page.url()).not.toContain("token");
    await linked.close();
  } finally {
    await guarded.stop();
  }
});
