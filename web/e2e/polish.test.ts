// Small things that one notices only when they are missing.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import {
  type Browser,
  importSession,
  type ScriptedModel,
  type Server,
  startBrowser,
  startModel,
  startServer,
  thread,
  until,
  type Visit,
  visit,
} from "./lib";

let model: ScriptedModel;
let server: Server;
let browser: Browser;
let view: Visit;

beforeAll(async () => {
  model = await startModel();
  server = await startServer({ env: model.env });
  browser = await startBrowser();
});
afterAll(async () => {
  await browser?.close();
  await server?.stop();
  await model?.stop();
});
beforeEach(async () => {
  view = await visit(browser, server);
});
afterEach(async () => {
  const { errors } = view;
  await view.close();
  expect(errors).toEqual([]);
});

const notebook = async (...cells: string[]) => {
  const id = await importSession(
    server,
    "Notebook",
    cells.map((code) => ({ code })),
  );
  await server.api("PATCH", `/v1/sessions/${id}`, { model: "" });
  return id;
};

test("what a dialog took the focus from gets it back", async () => {
  const { page } = view;
  await view.open();
  const { composer } = thread(page);
  await composer.focus();
  for (const keys of ["Control+k", "Control+k"]) {
    await page.keyboard.press(keys);
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "hidden" });
    await until("the composer has the focus", () => composer.evaluate((el) => el === document.activeElement));
  }
  const menu = page.getByRole("button", { name: "Menu", exact: true });
  await menu.click();
  await page.getByRole("menuitem", { name: /Keyboard shortcuts/ }).click();
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await until("the menu's button has the focus", () => menu.evaluate((el) => el === document.activeElement));
});

test("a running cell is deleted, comes back, and nobody seems to be at work any more", async () => {
  const { page } = view;
  const id = await notebook("import time\ntime.sleep(600)", "1 + 1");
  await view.open(`/s/${id}`);
  const t = thread(page);
  await t.cell(0).getByRole("button", { name: /^Run/ }).first().click();
  await t.status(0, "running");
  await page.getByRole("img", { name: "running" }).waitFor();
  await t.cell(0).hover();
  await t.cell(0).getByRole("button", { name: "Cell menu" }).click();
  await page.getByRole("menuitem", { name: /^Delete/ }).click();
  await until("one cell is left", async () => (await t.cells.count()) === 1);
  await page.getByRole("img", { name: "running" }).waitFor({ state: "hidden" });
  // What says so covers nothing one needs to go on.
  const said = await page.locator("[data-sonner-toast]").first().boundingBox();
  const below = await page.locator("form:has([data-composer])").boundingBox();
  expect((said?.y ?? 0) + (said?.height ?? 0)).toBeLessThan(below?.y ?? 0);
  await page.getByRole("button", { name: "Undo" }).click();
  await until("both are there", async () => (await t.cells.count()) === 2);
});

test("documentation comes also before there is a sandbox", async () => {
  const { page } = view;
  const id = await notebook("print(1)");
  await view.open(`/s/${id}`);
  await thread(page).cell(0).locator(".code-editor").click();
  await page.locator(".cm-content").first().waitFor();
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Shift+Tab");
  await page.getByText("Prints the values to a stream").first().waitFor({ timeout: 30_000 });
});

test("from the composer into the last cell and back, by keys alone", async () => {
  const { page } = view;
  const id = await notebook("1 + 1", "2 + 2");
  await view.open(`/s/${id}`);
  const t = thread(page);
  await t.cell(1).waitFor();
  const composer = page.locator("form .cm-content");
  const last = page.locator("[data-entry]").last();
  for (const up of ["ArrowUp", "Shift+Tab"]) {
    await composer.click();
    await page.keyboard.press("Escape");
    await page.keyboard.press(up);
    await until(`${up} reaches the last cell`, () => last.evaluate((el) => el === document.activeElement));
  }
  await page.keyboard.press("Enter");
  await until("its editor has the focus", () =>
    last.evaluate((el) => el !== document.activeElement && el.contains(document.activeElement)),
  );
  await page.keyboard.press("Escape");
  await page.keyboard.press("ArrowDown");
  await until("the composer has the focus", () => composer.evaluate((el) => el === document.activeElement));
});

test("a session in which nothing was done is not kept", async () => {
  const { page } = view;
  const { composer } = thread(page);
  const count = async () => (await server.api<{ sessions: unknown[] }>("GET", "/v1/sessions")).sessions.length;
  await view.open();
  const before = await count();
  await composer.pressSequentially("x");
  await page.waitForURL(/\/s\//);
  expect(await count()).toBe(before + 1);
  await composer.press("Backspace");
  await page.getByRole("button", { name: "New session" }).click();
  await until("it is gone", async () => (await count()) === before);
});

test("an answer that did not end well says so after a reload, and goes on", async () => {
  const { page } = view;
  await view.open();
  const t = thread(page);
  await t.send("Break off");
  await t.answered();
  await page.reload();
  await page.getByText("The model could not answer.").waitFor();
  await page.getByRole("button", { name: "Retry" }).click();
  await page.getByText("The model could not answer.").waitFor({ state: "hidden" });
  await t.answered();
  await t.send("Never stop calling");
  await t.answered();
  await page.reload();
  await page.getByText(/The model worked \d+ rounds/).waitFor();
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByRole("button", { name: "Stop the answer" }).click();
  await t.answered();
  await page.reload();
  await page.getByText("You stopped this answer.").waitFor();
});

test("files that a cell wrote are counted until somebody looks", async () => {
  const { page } = view;
  const id = await notebook('open("/workspace/one.txt", "w").write("1")');
  await view.open(`/s/${id}`);
  const t = thread(page);
  await t.cell(0).getByRole("button", { name: /^Run/ }).first().click();
  await page.getByRole("tab", { name: /Files 1/ }).waitFor({ timeout: 30_000 });
});

test("Plotly draws histograms, boxes and heat maps", async () => {
  const { page } = view;
  const figure = (type: string, data: object) => ({
    output_type: "display_data",
    data: { "application/vnd.plotly.v1+json": { data: [{ type, ...data }], layout: {} } },
    metadata: {},
  });
  const id = await importSession(server, "Charts", [
    {
      code: "charts",
      outputs: [
        figure("histogram", { x: [1, 2, 2, 3] }),
        figure("box", { y: [1, 2, 2, 9] }),
        figure("heatmap", {
          z: [
            [1, 2],
            [3, 4],
          ],
        }),
      ] as never,
    },
  ]);
  await view.open(`/s/${id}`);
  await until("three charts are drawn", async () => {
    let drawn = 0;
    for (const frame of page.frames().slice(1))
      drawn += await frame.locator(".main-svg .plot, .main-svg .cartesianlayer").count();
    return drawn >= 3;
  });
});
