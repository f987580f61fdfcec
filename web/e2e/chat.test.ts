// The main road: a person asks, the model runs Python, and both can be stopped,
// corrected and gone over again.
import { createServer, type Server as HTTPServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import {
  type Browser,
  dropFiles,
  repositoryFile,
  type ScriptedModel,
  type Server,
  startBrowser,
  startModel,
  startServer,
  thread,
  type Visit,
  visit,
} from "./lib";

let model: ScriptedModel;
let weather: HTTPServer;
let server: Server;
let browser: Browser;
let view: Visit;

beforeAll(async () => {
  weather = createServer((_, answer) => {
    answer.setHeader("Content-Type", "application/json");
    const hours = Array.from({ length: 24 }, (_, i) => `2026-11-23T${String(i).padStart(2, "0")}:00`);
    answer.end(
      JSON.stringify({
        latitude: 52.52,
        longitude: 13.41,
        timezone: "Europe/Berlin",
        utc_offset_seconds: 3600,
        current_units: { time: "iso8601", interval: "seconds", temperature_2m: "°C" },
        current: { time: "2026-11-23T13:00", interval: 900, temperature_2m: 7.4 },
        hourly_units: { time: "iso8601", temperature_2m: "°C" },
        hourly: { time: hours, temperature_2m: hours.map((_, i) => 3 + (i % 12) / 2) },
        daily_units: { time: "iso8601", sunrise: "iso8601", sunset: "iso8601" },
        daily: { time: ["2026-11-23"], sunrise: ["2026-11-23T07:38"], sunset: ["2026-11-23T16:01"] },
      }),
    );
  });
  await new Promise<void>((done) => weather.listen(0, "127.0.0.1", done));
  model = await startModel();
  server = await startServer({
    env: model.env,
    config: `weather_base_url: http://127.0.0.1:${(weather.address() as AddressInfo).port}\n`,
  });
  browser = await startBrowser();
});
afterAll(async () => {
  await browser?.close();
  await server?.stop();
  await model?.stop();
  weather?.close();
});
beforeEach(async () => {
  view = await visit(browser, server);
});
afterEach(async () => {
  const errors = view.errors;
  await view.close();
  expect(errors, "errors on the page's console").toEqual([]);
});

test("first visit to plot: drop a CSV, ask, see the code, a table and a plot", async () => {
  const { page, open } = view;
  const t = thread(page);
  await open();
  await t.composer.waitFor();
  await dropFiles(page, [{ name: "co2.csv", text: await repositoryFile("examples/co2.csv") }]);
  await page.getByRole("treeitem", { name: /co2\.csv/ }).waitFor();
  await t.send("Plot co2.csv");
  // The code is there before the model has finished it.
  await t.cell(0).getByText("import pandas as pd").waitFor();
  await t.status(0, "ok");
  await t.cell(0).getByRole("grid").waitFor();
  await t.cell(0).locator("img").waitFor();
  await t.answered();
  await page.getByRole("table").getByText("0.9 ppm").waitFor();
  await page.locator("math").first().waitFor();
  expect(new URL(page.url()).pathname).toMatch(/^\/s\/ses_/);

  // Tomorrow all of it is there.
  await page.reload();
  await t.cell(0).locator("img").waitFor();
  await page.getByText("Plot co2.csv", { exact: true }).first().waitFor();
  await page.getByRole("treeitem", { name: /co2\.csv/ }).waitFor();
});

test("a running loop is stopped, and the session goes on", async () => {
  const { page, open } = view;
  const t = thread(page);
  await open();
  await t.send("Run something long");
  await t.status(0, "running");
  await t.cell(0).getByText("step 0").waitFor();
  await page.getByRole("button", { name: "Stop the answer" }).click();
  await t.status(0, "interrupted");
  await page.getByText("You stopped this answer.").waitFor();
  await t.send("Make a mistake");
  await t.answered();
  await page.getByText("mean 12.83").waitFor();
});

test("an error goes back to the model, which corrects its code", async () => {
  const { page, open } = view;
  const t = thread(page);
  await open();
  await t.send("Make a mistake and correct it");
  await t.status(0, "error");
  await t.cell(0).getByText("ValueError").first().waitFor();
  await t.status(1, "ok");
  await t.answered();
});

test("input() asks in place", async () => {
  const { page, open } = view;
  const t = thread(page);
  await open();
  await t.send("Ask me something");
  const field = t.cell(0).getByRole("textbox", { name: /What is your name|The code asks/ });
  await field.fill("Ada <b>");
  await field.press("Enter");
  await t.cell(0).getByText("Hello, Ada <b>!").waitFor();
  await t.answered();
});

test("the weather has a card", async () => {
  const { page, open } = view;
  const t = thread(page);
  await open();
  await t.send("What is the weather in Berlin?");
  await t.answered();
  await page
    .getByText(/7(\.4)?\s*°/)
    .first()
    .waitFor();
});

test("a message is queued while the model works, and sent after", async () => {
  const { page, open } = view;
  const t = thread(page);
  await open();
  await t.send("Ask me something");
  const field = t.cell(0).getByRole("textbox", { name: /What is your name|The code asks/ });
  await field.waitFor();
  await t.send("Do two things at once");
  await page.getByRole("button", { name: "Don't send this" }).waitFor();
  await field.fill("Ada");
  await field.press("Enter");
  await t.status(2, "ok");
  await page.getByRole("button", { name: "Don't send this" }).waitFor({ state: "detached" });
  await t.answered();
  expect(await t.cells.count()).toBe(3);
});

test("a message is edited: a branch, and the way back", async () => {
  const { page, open } = view;
  const t = thread(page);
  await open();
  await t.send("Do two things at once");
  await t.answered();
  await page.getByText("Do two things at once", { exact: true }).last().hover();
  await page.getByRole("button", { name: "Edit", exact: true }).first().click();
  const editor = page.getByRole("textbox", { name: "Edit your message" });
  await editor.fill("Make a mistake");
  await editor.press("Enter");
  await t.cell(0).getByText("ValueError").first().waitFor();
  await t.answered();
  await page.getByRole("button", { name: "Previous version" }).first().click();
  await t.cell(1).getByText("285").waitFor();
  await page.getByRole("button", { name: "Next version" }).first().click();
  await t.cell(0).getByText("ValueError").first().waitFor();
});

test("the model's code is edited and run again by the person", async () => {
  const { page, open } = view;
  const t = thread(page);
  await open();
  await t.send("Do two things at once");
  await t.answered();
  await t.cell(1).getByText("print(sum(squares))").click();
  const editor = t.cell(1).locator(".cm-content");
  await editor.waitFor();
  await page.keyboard.press("ControlOrMeta+a");
  await page.keyboard.type("print(max(squares))");
  await page.keyboard.press("ControlOrMeta+Enter");
  await t.cell(1).getByText("81", { exact: true }).waitFor();
});

test("two tabs show the same, live", async () => {
  const { page, context, open } = view;
  const t = thread(page);
  await open();
  await t.send("Run something long");
  await t.cell(0).getByText("step 0").waitFor();
  const second = await context.newPage();
  await second.goto(page.url());
  await thread(second).cell(0).getByText("step 0").waitFor();
  await thread(second).cell(0).getByText("step 20").waitFor();
  await second.getByRole("button", { name: "Stop the answer" }).click();
  await t.status(0, "interrupted");
});
