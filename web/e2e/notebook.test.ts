// A notebook without any model, by mouse and by keyboard alone.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import {
  type Browser,
  type Server,
  sessionURL,
  sessionWithCell,
  startBrowser,
  startServer,
  thread,
  until,
  type Visit,
  visit,
} from "./lib";

let server: Server;
let browser: Browser;
let view: Visit;

beforeAll(async () => {
  // A model that happens to run on the machine must not take part.
  server = await startServer({ config: "discover_models: false\n" });
  browser = await startBrowser();
});
afterAll(async () => {
  await browser?.close();
  await server?.stop();
});
beforeEach(async () => {
  view = await visit(browser, server);
});
afterEach(async () => {
  const errors = view.errors;
  await view.close();
  expect(errors, "errors on the page's console").toEqual([]);
});

test("the first page says how to add a model, and its examples run", async () => {
  const { page, open } = view;
  await open();
  await page.getByText("OPENAI_API_KEY").first().waitFor();
  for (const name of ["Read a table", "Search a log", "Fit a curve"]) {
    await open();
    await page.getByRole("button", { name }).click();
    await page.locator("[data-cell]").first().waitFor();
    const t = thread(page);
    await until(
      `${name} runs to its end`,
      async () => {
        const all = await t.cells.evaluateAll((cells) => cells.map((c) => c.getAttribute("data-status")));
        return all.length > 0 && all.every((s) => s === "ok");
      },
      60_000,
    );
  }
});

test("keyboard only: write, run, complete, document, interrupt, insert, delete, undo", async () => {
  const { page } = view;
  const { id } = await sessionWithCell(server, "");
  await page.goto(sessionURL(server, id));
  const t = thread(page);
  await t.cell(0).waitFor();
  // The composer has the focus, where Tab indents: Escape leaves it.
  await until("the composer has it", () => page.evaluate(() => document.activeElement !== document.body));
  await page.keyboard.press("Escape");
  await until("the cell has the focus by Tab", async () => {
    await page.keyboard.press("Shift+Tab");
    return page.evaluate(() => document.activeElement?.hasAttribute("data-entry") === true);
  });
  await page.keyboard.press("Escape");
  await page.keyboard.press("Enter");
  await t.cell(0).locator(".cm-content").waitFor();
  await page.keyboard.type("number = 41");
  await page.keyboard.press("Shift+Enter");
  await t.status(0, "ok");
  // Shift+Enter at the end goes on in a new cell.
  await until("a second cell", async () => (await t.cells.count()) === 2);
  await t.cell(1).locator(".cm-content").waitFor();
  await page.keyboard.type("numb");
  await page.keyboard.press("Tab");
  await page.locator(".cm-tooltip-autocomplete").getByText("number").waitFor();
  // The editor takes an Enter within 75 ms of the list's appearance for a new line, as nobody meant it for the list yet.
  await page.waitForTimeout(200);
  await page.keyboard.press("Enter");
  await page.keyboard.type(" + 1");
  await page.keyboard.press("ControlOrMeta+Enter");
  await t.cell(1).getByText("42", { exact: true }).waitFor();

  await page.keyboard.press("Escape");
  await page.keyboard.press("b");
  await until("a third cell", async () => (await t.cells.count()) === 3);
  await page.keyboard.press("Enter");
  await t.cell(2).locator(".cm-content").waitFor();
  await page.keyboard.type("while True: pass");
  await page.keyboard.press("ControlOrMeta+Enter");
  await t.status(2, "running");
  await page.keyboard.press("Escape");
  await page.keyboard.press("i");
  await page.keyboard.press("i");
  await t.status(2, "interrupted");
  await t.cell(2).getByText("KeyboardInterrupt").first().waitFor();

  await page.keyboard.press("d");
  await page.keyboard.press("d");
  await until("the cell is gone", async () => (await t.cells.count()) === 2);
  await page.keyboard.press("z");
  await until("the cell is back", async () => (await t.cells.count()) === 3);
});

test("documentation of what stands at the cursor", async () => {
  const { page } = view;
  const { id } = await sessionWithCell(server, "len");
  await page.goto(sessionURL(server, id));
  const t = thread(page);
  await t.cell(0).getByText("len").click();
  await t.cell(0).locator(".cm-content").waitFor();
  await page.keyboard.press("End");
  await page.keyboard.press("Shift+Tab");
  await page.getByText("Return the number of items in a container").waitFor();
});

test("progress bars, colours, and outputs that change stand as a terminal shows them", async () => {
  const { page } = view;
  const code = `import sys, time
from tqdm import tqdm
for _ in tqdm(range(30), file=sys.stdout, desc="work"): pass
print("\\x1b[31mred\\x1b[0m plain")
h = display("first", display_id=True)
h.update("second")`;
  const { id, item } = await sessionWithCell(server, code);
  await page.goto(sessionURL(server, id));
  await server.api("POST", `/v1/sessions/${id}/run`, { items: [item] });
  const t = thread(page);
  await t.status(0, "ok");
  await t
    .cell(0)
    .getByText(/work: 100%/)
    .waitFor();
  const text = (await t.cell(0).textContent()) ?? "";
  expect(text.match(/work:/g)).toHaveLength(1);
  expect(text).toContain("second");
  expect(text).not.toContain("first'");
  const colour = await t
    .cell(0)
    .getByText("red", { exact: true })
    .evaluate((e) => getComputedStyle(e).color);
  const plain = await t.cell(0).evaluate((e) => getComputedStyle(e).color);
  expect(colour).not.toBe(plain);
});

test("a kernel that dies says why, and the next run works", async () => {
  const { page } = view;
  const { id, item } = await sessionWithCell(server, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)");
  await page.goto(sessionURL(server, id));
  await server.api("POST", `/v1/sessions/${id}/run`, { items: [item] });
  const t = thread(page);
  await t.status(0, "killed");
  await server.api("PATCH", `/v1/sessions/${id}/items/${item}`, { code: "print('again')" });
  await server.api("POST", `/v1/sessions/${id}/run`, { items: [item] });
  await t.cell(0).getByText("again", { exact: true }).waitFor();
});

test("sessions: rename, search, duplicate, delete and undo", async () => {
  const { page } = view;
  const { id } = await sessionWithCell(server, "print('zebra crossing')");
  await server.api("PATCH", `/v1/sessions/${id}`, { title: "Quarterly figures" });
  await page.goto(sessionURL(server, id));
  const list = page.getByRole("navigation", { name: "Sessions" });
  await list.getByText("Quarterly figures").waitFor();
  await page.getByPlaceholder("Search sessions").fill("zebra");
  await until("only the one that holds it", async () => (await list.getByRole("link").count()) === 1);
  await page.getByPlaceholder("Search sessions").fill("");
  await server.api("POST", `/v1/sessions/${id}/duplicate`);
  await until("the copy, without a reload", async () => (await list.getByText(/Quarterly figures/).count()) === 2);
});
