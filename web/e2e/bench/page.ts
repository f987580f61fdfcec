// make bench-web: how fast the page is, on this machine, with the built server,
// real sandboxes and a scripted model. Prints a table; asserts nothing.
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, test } from "vitest";
import {
  type Browser,
  importSession,
  type Page,
  type ScriptedModel,
  type Server,
  sessionURL,
  sessionWithCell,
  startBrowser,
  startModel,
  startServer,
  stream,
  thread,
  until,
  visit,
} from "../lib";

const runs = Number(process.env.RUNS ?? 10);
const rows: string[] = [];

/** One line of the table: median, 90th percentile and maximum. */
function report(what: string, unit: string, target: string, values: number[]): void {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (q: number) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
  const n = (v: number) => v.toFixed(v < 10 ? 1 : 0);
  rows.push(`| ${what} | ${n(at(0.5))} | ${n(at(0.9))} | ${n(at(1))} | ${unit} | ${target} | ${values.length} |`);
}

// 40 pieces, each with a number to look for, 50 ms apart: what is measured is
// what comes after the model, not the model.
const script = `models: [scripted]
scenarios:
  - name: steady
    match: steady
    steps:
      - text: "${Array.from({ length: 40 }, (_, i) => `t${i}e`).join(" ")}"
        tokens_per_second: 20
  - name: other
    steps:
      - text: Hello.
`;

let model: ScriptedModel;
let server: Server;
let browser: Browser;

beforeAll(async () => {
  model = await startModel(script);
  server = await startServer({ env: model.env });
  browser = await startBrowser();
});
afterAll(async () => {
  await browser?.close();
  await server?.stop();
  await model?.stop();
  const head = "| | p50 | p90 | max | | target | N |\n|---|---:|---:|---:|---|---|---:|";
  console.log(`\n${head}\n${rows.join("\n")}\n`);
});

/** Records in the page, on each animation frame, when texts are first on it. */
async function watch(page: Page, pattern: string): Promise<void> {
  await page.evaluate((source) => {
    const seen: Record<string, number> = {};
    (window as unknown as { seen: Record<string, number> }).seen = seen;
    const look = () => {
      const text = document.querySelector("[data-thread]")?.textContent ?? "";
      const now = Date.now();
      for (const match of text.matchAll(new RegExp(source, "g"))) seen[match[0]] ??= now;
      requestAnimationFrame(look);
    };
    look();
  }, pattern);
}

const seenBy = (page: Page) =>
  page.evaluate(() => (window as unknown as { seen: Record<string, number> }).seen) as Promise<Record<string, number>>;

test("first load", async () => {
  const ready: number[] = [];
  let bytes = 0;
  for (let i = 0; i < runs; i++) {
    const { page, close } = await visit(browser, server);
    const bodies: Promise<number>[] = [];
    page.on("response", (answer) => {
      const type = answer.headers()["content-type"] ?? "";
      if (/html|javascript|css|font|svg/.test(type)) {
        bodies.push(answer.body().then((body) => (/font/.test(type) ? body.length : gzipSync(body).length)));
      }
    });
    const from = Date.now();
    await page.goto("/");
    await thread(page).composer.waitFor();
    ready.push(Date.now() - from);
    await page.waitForLoadState("networkidle");
    bytes = (await Promise.all(bodies)).reduce((a, b) => a + b, 0);
    await close();
  }
  report("address typed to a page that takes words", "ms", "≤ 1000", ready);
  report("all that this page loads, gzip", "KB", "≤ 220", [bytes / 1024]);
});

test("a session of 500 messages and cells", async () => {
  const cells = Array.from({ length: 500 }, (_, i) =>
    i % 2
      ? { markdown: `**Answer ${i}.** A sentence with \`code\`, and a list:\n\n- one\n- two` }
      : { code: `# cell ${i}\nfor i in range(20):\n    print(i)`, outputs: [stream(`output of ${i}\n`.repeat(10))] },
  );
  await importSession(server, "Large", cells);
  const times: number[] = [];
  for (let i = 0; i < runs; i++) {
    const { page, close } = await visit(browser, server);
    await page.goto("/");
    await thread(page).composer.waitFor();
    const from = Date.now();
    await page.getByRole("link", { name: "Large" }).first().click();
    await page.locator("[data-entry]").first().waitFor();
    await page.getByText("output of 0").first().waitFor({ state: "attached" });
    times.push(Date.now() - from);
    await close();
  }
  report("a session of 500 items opens", "ms", "≤ 500", times);
});

test("output from the kernel to the screen", async () => {
  const code = `import time
time.sleep(1)
for i in range(60):
    print(f"o{int(time.time() * 1000)}e", flush=True)
    time.sleep(0.05)`;
  const { id, item } = await sessionWithCell(server, code);
  const { page, close } = await visit(browser, server);
  await page.goto(sessionURL(server, id));
  await thread(page).cell(0).waitFor();
  await watch(page, "o\\d{13}e");
  await server.api("POST", `/v1/sessions/${id}/run`, { items: [item] });
  await thread(page).status(0, "ok");
  const seen = await seenBy(page);
  report(
    "a printed line to the screen",
    "ms",
    "≤ 100",
    Object.entries(seen).map(([key, at]) => at - Number(key.slice(1, -1))),
  );
  await close();
});

test("tokens from the model to the screen", async () => {
  const added: number[] = [];
  for (let i = 0; i < Math.min(runs, 3); i++) {
    const { page, open, close } = await visit(browser, server);
    await open();
    const t = thread(page);
    await t.composer.waitFor();
    await watch(page, "t\\d+e");
    await t.send("steady");
    await t.answered();
    const seen = await seenBy(page);
    // When the server had each piece: its event's own time.
    const session = new URL(page.url()).pathname.split("/")[2];
    const events = await fetch(`${server.url}/v1/sessions/${session}/events?after=0`, {
      headers: { Accept: "application/x-ndjson" },
      signal: AbortSignal.timeout(1500),
    }).then(async (answer) => {
      let text = "";
      try {
        for await (const part of answer.body ?? []) text += Buffer.from(part).toString();
      } catch {} // the stream has no end
      return text;
    });
    let said = "";
    for (const line of events.split("\n")) {
      if (!line.includes('"item.delta"')) continue;
      const event = JSON.parse(line) as { time: string; data: { append: string } };
      const before = said.length;
      said += event.data.append;
      for (const match of said.matchAll(/t\d+e/g)) {
        const end = (match.index ?? 0) + match[0].length;
        const shown = seen[match[0]];
        if (end > before && shown) added.push(shown - Date.parse(event.time));
      }
    }
    await close();
  }
  report("a token from the server to the screen", "ms", "≤ 50", added);
});

test("typing hides the start of the sandbox", async () => {
  const times: number[] = [];
  for (let i = 0; i < runs; i++) {
    const { page, open, close } = await visit(browser, server);
    await open();
    const t = thread(page);
    await t.composer.waitFor();
    const from = Date.now();
    await t.composer.press("H");
    await until("the sandbox is ready", () => page.getByRole("button", { name: /Sandbox: Ready/ }).isVisible());
    times.push(Date.now() - from);
    const session = new URL(page.url()).pathname.split("/")[2];
    if (session) await server.api("DELETE", `/v1/sessions/${session}`);
    await close();
  }
  report("first keystroke to a sandbox that is ready", "ms", "while typing", times);
});

test("200,000 lines while the page answers", async () => {
  const worst: number[] = [];
  for (let i = 0; i < Math.min(runs, 3); i++) {
    const { id, item } = await sessionWithCell(server, "for i in range(200_000): print('row', i)");
    const { page, close } = await visit(browser, server);
    await page.goto(sessionURL(server, id));
    await thread(page).cell(0).waitFor();
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
    await thread(page).status(0, "ok", 60_000);
    worst.push(await page.evaluate(() => (window as unknown as { worst: number }).worst));
    await close();
  }
  report("200,000 lines: longest time the page did not answer", "ms", "< 100", worst);
});
