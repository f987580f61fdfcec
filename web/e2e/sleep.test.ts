// A sandbox that sleeps: by the menu, over a reload, and with its memory damaged on disk.
import { open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  type Browser,
  type Page,
  type Server,
  sessionURL,
  sessionWithCell,
  startBrowser,
  startServer,
  thread,
  until,
  visit,
} from "./lib";

let server: Server;
let browser: Browser;

beforeAll(async () => {
  server = await startServer();
  browser = await startBrowser();
});
afterAll(async () => {
  await browser?.close();
  await server?.stop();
});

const pill = (page: Page) => page.getByRole("button", { name: /^Sandbox: / });

async function sandboxOf(session: string): Promise<{ id: string; state: string }> {
  return (await server.api<{ sandbox: { id: string; state: string } }>("GET", `/v1/sessions/${session}`)).sandbox;
}

async function addCell(session: string, code: string): Promise<string> {
  return (await server.api<{ id: string }>("POST", `/v1/sessions/${session}/items`, { kind: "cell", code })).id;
}

/** Puts the sandbox to sleep as a person does, and says what the status then shows. */
async function putToSleep(page: Page): Promise<void> {
  await pill(page).click();
  await page.getByRole("button", { name: "Put to sleep" }).click();
  await page.getByText(/^Asleep since .+ \(\d.* on disk\)$/).waitFor();
  await page.keyboard.press("Escape");
}

/** Overwrites the middle of every saved memory of a sandbox. */
async function damage(sandbox: string): Promise<void> {
  const saved = join(server.dataDir, "state/sandboxes", sandbox, "saved");
  let hit = 0;
  for (const name of await readdir(saved)) {
    const path = join(saved, name);
    const { size } = await stat(path);
    if (!name.endsWith(".img") || size < 4096) continue;
    const file = await open(path, "r+");
    await file.write(Buffer.alloc(4096, 0xa5), 0, 4096, Math.floor(size / 2));
    await file.close();
    hit++;
  }
  expect(hit).toBeGreaterThan(0);
}

test("put to sleep by the menu, it wakes with the next run and has its variables, over a reload", async () => {
  const { id, item } = await sessionWithCell(server, "x = 41");
  const { page, errors, close } = await visit(browser, server);
  const t = thread(page);
  await page.goto(sessionURL(server, id));
  await server.api("POST", `/v1/sessions/${id}/run`, { items: [item] });
  await t.status(0, "ok");
  await putToSleep(page);

  // Looking at it wakes nobody: the thread, the files, the variables.
  await page.reload();
  await t.status(0, "ok");
  await pill(page)
    .and(page.getByRole("button", { name: /Asleep since/ }))
    .waitFor();
  await page.getByRole("tab", { name: "Variables" }).click();
  await page.getByText("The variables are saved with the sandbox.").waitFor();
  await page.getByRole("tab", { name: "Files" }).click();
  expect((await sandboxOf(id)).state).toBe("paused");

  const again = await addCell(id, "x + 1");
  await server.api("POST", `/v1/sessions/${id}/run`, { items: [again] });
  await t.status(1, "ok");
  await t.cell(1).getByText("42", { exact: true }).waitFor();
  expect((await sandboxOf(id)).state).toMatch(/ready|busy/);
  expect(errors).toEqual([]);
  await close();
});

test("the wake button brings it back", async () => {
  const { id, item } = await sessionWithCell(server, "x = 41");
  const { page, close } = await visit(browser, server);
  const t = thread(page);
  await page.goto(sessionURL(server, id));
  await server.api("POST", `/v1/sessions/${id}/run`, { items: [item] });
  await t.status(0, "ok");
  await putToSleep(page);
  await pill(page).click();
  await page.getByRole("button", { name: "Wake" }).click();
  await until("it is awake", async () => (await sandboxOf(id)).state === "ready");
  await page.getByRole("button", { name: "Sandbox: Ready" }).waitFor();
  await close();
});

test("when its memory is damaged on disk, files are there and a notice says what is not", async () => {
  const { id, item } = await sessionWithCell(server, "x = 41\nopen('/workspace/kept.txt', 'w').write('here')");
  const { page, errors, close } = await visit(browser, server);
  const t = thread(page);
  await page.goto(sessionURL(server, id));
  await server.api("POST", `/v1/sessions/${id}/run`, { items: [item] });
  await t.status(0, "ok");
  await putToSleep(page);
  await damage((await sandboxOf(id)).id);

  const again = await addCell(id, "print(open('/workspace/kept.txt').read())\nx");
  await server.api("POST", `/v1/sessions/${id}/run`, { items: [again] });
  await t.status(1, "error", 60_000);
  await t.cell(1).getByText("here", { exact: true }).waitFor();
  await t.cell(1).getByText("NameError").first().waitFor();
  const notice = page.getByRole("region", { name: "Sandbox" });
  await notice.getByText(/its memory could not be brought back.*Files are there; run again the cells/).waitFor();
  await notice.getByRole("button", { name: "Run all cells" }).click();
  await t.status(1, "ok");
  await t.cell(1).getByText("41", { exact: true }).waitFor();
  await notice.getByRole("button", { name: "Dismiss" }).click();
  await notice.waitFor({ state: "detached" });
  expect(errors).toEqual([]);
  await close();
});
