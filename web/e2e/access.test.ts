// Everybody can use it: on a phone, in the dark, by ear, in German.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type Browser,
  findings,
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
} from "./lib";

interface Detail {
  items: { status: string }[];
  sandbox: { id: string; state: string };
}

let model: ScriptedModel;
let server: Server;
let browser: Browser;
let session: string;

beforeAll(async () => {
  model = await startModel();
  server = await startServer({ env: model.env });
  browser = await startBrowser();
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

const looks = [
  { name: "light", dark: false, size: "desktop" },
  { name: "dark", dark: true, size: "desktop" },
  { name: "phone", dark: false, size: "phone" },
  { name: "phone in the dark", dark: true, size: "phone" },
] as const;

describe.each(looks)("$name", ({ dark, size }) => {
  test("the first page and a session have no finding, and nothing is cut off", async () => {
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

// Something of each sort that a cell shows, with colours that a program chose.
const showy = `import sys
import pandas as pd
from IPython.display import HTML, JSON, Latex, Markdown, display
x = 41
df = pd.DataFrame({"name": [f"row {i}" for i in range(1000)], "n": range(1000), "y": [None if i % 7 == 0 else i / 3 for i in range(1000)]})
print("".join(f"\\x1b[{n}m{n} " for n in [*range(31, 37), *range(90, 98)]), "\\x1b[38;5;28mgreen \\x1b[38;5;226myellow \\x1b[38;2;20;20;90mnight\\x1b[0m")
print("a warning", file=sys.stderr)
display(HTML("<b>bold</b>"), JSON({"a": [1, {"b": 2}]}), Latex("$x^2$"))
class Both:
    def _repr_html_(self): return "<i>1</i>"
    def _repr_markdown_(self): return "*1*"
display(Both())
open("/workspace/a.csv", "w").write("a,b\\n1,2\\n")
df`;

describe("a session with all sorts of outputs", () => {
  let id: string;
  const pill = (page: Page) => page.getByRole("button", { name: /^Sandbox: / });
  const shown = async (page: Page) => {
    await page.goto(sessionURL(server, id));
    const t = thread(page);
    await t.status(0, "ok");
    await t.cell(0).getByRole("grid").waitFor();
    return t;
  };
  const panel = async (page: Page, name: string) => {
    const tab = page.getByRole("tab", { name: new RegExp(`^${name}`) });
    if (await tab.isHidden()) await page.getByRole("button", { name: /files and variables/i }).click();
    await tab.click();
    await page.getByRole("tabpanel", { name: new RegExp(`^${name}`) }).waitFor();
  };

  beforeAll(async () => {
    const made = await sessionWithCell(server, showy);
    id = made.id;
    await server.api("POST", `/v1/sessions/${id}/items`, { kind: "note", text: "# A note\n\n`code`" });
    const bad = await server.api<{ id: string }>("POST", `/v1/sessions/${id}/items`, {
      kind: "cell",
      code: "import json\njson.loads('x')",
    });
    await server.api("POST", `/v1/sessions/${id}/run`, { items: [made.item, bad.id] });
    await until("the end of both", async () => {
      const { items, sandbox } = await server.api<Detail>("GET", `/v1/sessions/${id}`);
      return sandbox.state === "ready" && items.filter((i) => i.status === "ok" || i.status === "error").length === 2;
    });
  });

  test.each(looks)("awake, $name", async ({ dark, size }) => {
    const { page, errors, close } = await visit(browser, server, { dark, size });
    const t = await shown(page);
    const grid = t.cell(0).getByRole("grid");
    await t.cell(0).scrollIntoViewIfNeeded();
    expect(await findings(page)).toEqual([]);
    await grid.getByRole("button", { name: "Sort by n", exact: true }).click();
    await grid.getByRole("gridcell", { name: "row 3", exact: true }).click();
    expect(await findings(page)).toEqual([]);
    await t.cell(1).scrollIntoViewIfNeeded();
    expect(await findings(page)).toEqual([]);
    await pill(page).click();
    await page.getByRole("meter").first().waitFor();
    expect(await findings(page)).toEqual([]);
    await page.keyboard.press("Escape");
    await panel(page, "Variables");
    await page.locator("[data-variable=df]").waitFor();
    expect(await findings(page)).toEqual([]);
    await panel(page, "Files");
    await page.getByRole("treeitem", { name: /a\.csv/ }).waitFor();
    expect(await findings(page)).toEqual([]);
    expect(errors).toEqual([]);
    await close();
  });

  test.each(looks)("asleep, $name; nothing that only looks wakes it", async ({ dark, size }) => {
    const sandbox = (await server.api<Detail>("GET", `/v1/sessions/${id}`)).sandbox.id;
    const asleep = () => server.api<{ state: string; paused_at: string }>("GET", `/v1/sandboxes/${sandbox}`);
    if ((await asleep()).state === "running") await server.api("POST", `/v1/sandboxes/${sandbox}/pause`);
    const before = await asleep();
    expect(before.state).toBe("paused");

    const { page, errors, close } = await visit(browser, server, { dark, size });
    const t = await shown(page);
    expect(await findings(page)).toEqual([]);
    const grid = t.cell(0).getByRole("grid");
    await grid.scrollIntoViewIfNeeded();
    await grid.getByRole("gridcell", { name: "row 3", exact: true }).waitFor();
    await t.cell(1).scrollIntoViewIfNeeded();
    await pill(page).click();
    await page.getByText(/^Asleep since .+ \(\d.* on disk\)$/).waitFor();
    expect(await findings(page)).toEqual([]);
    await page.keyboard.press("Escape");
    await panel(page, "Variables");
    await page.getByText("The variables are saved with the sandbox.").waitFor();
    expect(await findings(page)).toEqual([]);
    await panel(page, "Files");
    await page.getByRole("treeitem", { name: /a\.csv/ }).waitFor();
    expect(await findings(page)).toEqual([]);
    // Also with both areas open from the start.
    await page.reload();
    await t.cell(0).getByRole("grid").waitFor();
    await panel(page, "Files");
    await page.getByRole("treeitem", { name: /a\.csv/ }).waitFor();
    expect(await asleep()).toMatchObject({ state: "paused", paused_at: before.paused_at });
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
