// make screens: the pictures of docs/screens, of the real page with real
// sandboxes and the demonstration's model.
import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, test } from "vitest";
import {
  type Browser,
  dropFiles,
  type Page,
  repositoryFile,
  type ScriptedModel,
  type Server,
  sessionURL,
  startBrowser,
  startModel,
  startServer,
  thread,
  visit,
} from "../lib";

const folder = fileURLToPath(new URL("../../../docs/screens/", import.meta.url));
const shot = (page: Page, name: string) => page.screenshot({ path: `${folder}${name}.png` });

/** Waits until pictures and frames are drawn and nothing moves for half a second. */
async function still(page: Page): Promise<void> {
  await page.waitForFunction(() => {
    const w = window as unknown as { was?: string; since?: number };
    const now = [...document.querySelectorAll("[data-entry], iframe, img")]
      .map((e) => `${e.getBoundingClientRect().top},${e.clientHeight},${(e as HTMLImageElement).complete ?? ""}`)
      .join(" ");
    if (now !== w.was) {
      w.was = now;
      w.since = performance.now();
    }
    return performance.now() - (w.since ?? 0) > 500;
  });
}

let model: ScriptedModel;
let server: Server;
let bare: Server;
let browser: Browser;
let session: string;

beforeAll(async () => {
  await mkdir(folder, { recursive: true });
  model = await startModel();
  const weather = new URL(model.env.OPENAI_BASE_URL ?? "").origin;
  server = await startServer({ env: model.env, config: `weather_base_url: ${weather}\n` });
  bare = await startServer({ config: "discover_models: false\n" });
  browser = await startBrowser();
});
afterAll(async () => {
  await browser?.close();
  await server?.stop();
  await bare?.stop();
  await model?.stop();
});

test("the first page, with and without a model", async () => {
  const asked = await visit(browser, server);
  await asked.open();
  await thread(asked.page).composer.waitFor();
  await asked.page.getByText("No files yet").waitFor();
  await shot(asked.page, "welcome");
  await asked.close();
  const notebook = await visit(browser, bare, { dark: true });
  await notebook.open();
  await notebook.page.getByText("OPENAI_API_KEY").first().waitFor();
  await notebook.page.getByText("No files yet").waitFor();
  await shot(notebook.page, "welcome-notebook-dark");
  await notebook.close();
});

test("a question about a file", async () => {
  const { page, open, close } = await visit(browser, server);
  const t = thread(page);
  await open();
  await t.composer.waitFor();
  await dropFiles(page, [{ name: "co2.csv", text: await repositoryFile("examples/co2.csv") }]);
  await page.getByRole("treeitem", { name: /co2\.csv/ }).waitFor();
  await t.send("Plot co2.csv");
  await t.cell(0).getByText("df.groupby").waitFor();
  await shot(page, "writing");
  await t.answered();
  await t.cell(0).locator("img").scrollIntoViewIfNeeded();
  await t.cell(0).getByRole("grid").scrollIntoViewIfNeeded();
  await still(page);
  await shot(page, "plot");
  session = new URL(page.url()).pathname.split("/")[2] ?? "";
  await page.getByRole("tab", { name: "Variables" }).click();
  await page.getByText("DataFrame").first().waitFor();
  await page.getByRole("table").last().scrollIntoViewIfNeeded();
  await shot(page, "answer-variables");
  await close();
});

test("the same in the dark and on a phone", async () => {
  const dark = await visit(browser, server, { dark: true });
  await dark.page.goto(sessionURL(server, session));
  await thread(dark.page).cell(0).getByRole("grid").waitFor();
  await thread(dark.page).cell(0).locator("img").scrollIntoViewIfNeeded();
  await still(dark.page);
  await shot(dark.page, "plot-dark");
  await dark.close();
  const phone = await visit(browser, server, { size: "phone" });
  await phone.page.goto(sessionURL(server, session));
  await thread(phone.page).cell(0).locator("img").scrollIntoViewIfNeeded();
  await shot(phone.page, "phone");
  await phone.close();
});

test("a run that is under way, an error, weather, other outputs", async () => {
  const { page, open, close } = await visit(browser, server);
  const t = thread(page);
  await open();
  await t.send("Run something long");
  await t.cell(0).getByText("step 20").waitFor();
  await shot(page, "running");
  await page.getByRole("button", { name: "Stop the answer" }).click();
  await t.status(0, "interrupted");
  await t.send("Make a mistake");
  await t.answered();
  await shot(page, "mistake");
  await t.send("What is the weather in Berlin?");
  await t.answered();
  await shot(page, "weather");
  await t.send("Show me every sort of output");
  await t.answered();
  await still(page);
  await shot(page, "outputs");
  await close();
});

test("a notebook in German", async () => {
  const { page, open, close } = await visit(browser, bare, { language: "de" });
  await open();
  await page
    .getByRole("button", { name: /Tabelle|table/i })
    .first()
    .click();
  const t = thread(page);
  await t.status(0, "ok");
  await still(page);
  await shot(page, "notebook-german");
  await close();
});
