// Nothing is lost: by a reload, a restart of the server, a flood of output.
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  type Browser,
  type ScriptedModel,
  type Server,
  sessionURL,
  sessionWithCell,
  startBrowser,
  startModel,
  startServer,
  thread,
  until,
  visit,
} from "./lib";

let model: ScriptedModel;
let server: Server;
let browser: Browser;

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

// Prints numbers until a file appears, so that the test decides how long it runs.
const counting = `import os, time
n = 0
while not os.path.exists("/workspace/enough"):
    print("line", n, flush=True)
    n += 1
    time.sleep(0.02)
print("the end", n)`;

async function lines(session: string): Promise<string> {
  const detail = await server.api<{ items: { outputs?: { text?: string }[] }[] }>("GET", `/v1/sessions/${session}`);
  return detail.items[0]?.outputs?.map((o) => o.text ?? "").join("") ?? "";
}

/** Ends the counting cell and checks that no line is missing or doubled. */
async function wholeAfterAll(session: string): Promise<void> {
  await server.api("PUT", `/v1/sessions/${session}/files/content?path=/workspace/enough`, "x", {
    "Content-Type": "application/octet-stream",
  });
  const text = await until("the end of the cell", async () => {
    const all = await lines(session);
    return all.includes("the end") && all;
  });
  const seen = [...text.matchAll(/^line (\d+)$/gm)].map((m) => Number(m[1]));
  const total = Number(/the end (\d+)/.exec(text)?.[1]);
  expect(seen).toEqual(Array.from({ length: total }, (_, i) => i));
}

test("a reload in the middle of a run loses nothing", async () => {
  const { id, item } = await sessionWithCell(server, counting);
  const { page, close } = await visit(browser, server);
  const t = thread(page);
  await page.goto(sessionURL(server, id));
  await server.api("POST", `/v1/sessions/${id}/run`, { items: [item] });
  await t.cell(0).getByText("line 10", { exact: true }).waitFor();
  await page.reload();
  await t.status(0, "running");
  await t.cell(0).getByText("line 60", { exact: true }).waitFor();
  await wholeAfterAll(id);
  await t.status(0, "ok");
  await close();
});

test("a server that is killed and started again in the middle of a run loses nothing", async () => {
  const { id, item } = await sessionWithCell(server, counting);
  const { page, close } = await visit(browser, server);
  const t = thread(page);
  await page.goto(sessionURL(server, id));
  await server.api("POST", `/v1/sessions/${id}/run`, { items: [item] });
  await t.cell(0).getByText("line 20", { exact: true }).waitFor();
  await server.kill();
  await server.start();
  // The same page, not reloaded, goes on.
  await t
    .cell(0)
    .getByText(/^line 1\d\d$/)
    .first()
    .waitFor({ timeout: 60_000 });
  await wholeAfterAll(id);
  await t.status(0, "ok");
  await t
    .cell(0)
    .getByText(/the end \d+/)
    .waitFor();
  await close();
});

test("an answer that a restart cut says so and can be continued", async () => {
  const { page, open, close } = await visit(browser, server);
  const t = thread(page);
  await open();
  await t.send("Run something long");
  await t.cell(0).getByText("step 0").waitFor();
  await server.kill();
  await server.start();
  await page
    .getByText(/The server was restarted while the model worked/)
    .first()
    .waitFor({ timeout: 60_000 });
  const session = new URL(page.url()).pathname.split("/")[2];
  await server.api("POST", `/v1/sessions/${session}/interrupt`);
  await t.status(0, "interrupted");
  await page.getByRole("button", { name: "Continue" }).click();
  await t.answered();
  await page.getByText("It ran to its end.", { exact: true }).waitFor();
  await close();
}, 120_000);

test("files and cells are there when the sandbox is gone, and a new one has the files", async () => {
  const { id, item } = await sessionWithCell(server, 'open("kept.txt", "w").write("kept")');
  await server.api("POST", `/v1/sessions/${id}/run`, { items: [item] });
  const { page, close } = await visit(browser, server);
  await page.goto(sessionURL(server, id));
  await page.getByRole("treeitem", { name: /kept\.txt/ }).waitFor();
  await server.api("DELETE", `/v1/sessions/${id}/sandbox`);
  await page.reload();
  await page.getByRole("treeitem", { name: /kept\.txt/ }).waitFor();
  await server.api("PATCH", `/v1/sessions/${id}/items/${item}`, { code: 'print(open("kept.txt").read() * 2)' });
  await server.api("POST", `/v1/sessions/${id}/run`, { items: [item] });
  await thread(page).cell(0).getByText("keptkept").waitFor();
  await close();
});

test("200,000 lines of output, and the page answers while they come", async () => {
  const { id, item } = await sessionWithCell(server, "for i in range(200_000): print('row', i)");
  const { page, close } = await visit(browser, server);
  const t = thread(page);
  await page.goto(sessionURL(server, id));
  await t.cell(0).waitFor();
  // The longest time the page did not answer, measured in it.
  await page.evaluate(() => {
    const w = window as unknown as { worst: number };
    w.worst = 0;
    let last = performance.now();
    setInterval(() => {
      const now = performance.now();
      w.worst = Math.max(w.worst, now - last - 10);
      last = now;
    }, 10);
  });
  await server.api("POST", `/v1/sessions/${id}/run`, { items: [item] });
  await t.status(0, "ok", 60_000);
  await t.cell(0).getByText("row 199999", { exact: true }).waitFor();
  const worst = await page.evaluate(() => (window as unknown as { worst: number }).worst);
  console.log(`200,000 lines: the page was busy for at most ${worst.toFixed(0)} ms at a time`);
  await close();
});
