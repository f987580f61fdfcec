// Many people and one page: who is signed out while working, who comes after whom
// in one browser, who may only look, who reaches a limit, and what an admin does.
import { execFile } from "node:child_process";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type Browser,
  dropFiles,
  findings,
  type Issuer,
  newSession,
  openMenu,
  type Page,
  password,
  row,
  type Server,
  section,
  sessionURL,
  signIn,
  startBrowser,
  startIssuer,
  startServer,
  thread,
  until,
  type Visit,
  visit,
} from "./lib";

const run = promisify(execFile);
const names = ["ann", "bob", "lim", "vic", "dis"] as const;
const address = (name: string) => `${name}@example.org`;

let issuer: Issuer;
let server: Server;
let browser: Browser;
let acme: string;

beforeAll(async () => {
  issuer = await startIssuer();
  server = await startServer({
    auth: "accounts",
    env: issuer.env,
    config: `${issuer.config("role_claim: groups\nroles: {staff: member}")}
limits: {users: {${address("lim")}: {executions_per_minute: 2}}}
`,
  });
  browser = await startBrowser();
  const secret = server.setup.split("=").at(-1);
  await server.api("POST", "/v1/sign-in/link", {
    secret,
    password,
    email: address("ann"),
    name: "Ann",
    organisation: "Acme",
  });
  const { organisations } = await server.api<{ organisations: { id: string }[] }>("GET", "/v1/organisations");
  acme = organisations[0]?.id ?? "";
  for (const name of names.slice(1)) {
    const user = await server.api<{ id: string }>("POST", "/v1/users", {
      email: address(name),
      name: name[0]?.toUpperCase() + name.slice(1),
      role: "member",
      organisation_id: acme,
    });
    const { url } = await server.api<{ url: string }>("POST", `/v1/users/${user.id}/link`);
    await server.api("POST", "/v1/sign-in/link", { secret: url.split("=").at(-1), password });
  }
});
afterAll(async () => {
  await browser?.close();
  await server?.stop();
  await issuer?.stop();
});

async function as(name: string, options = {}): Promise<Visit> {
  const v = await visit(browser, server, { login: false, ...options });
  await signIn(v, address(name));
  await v.page.getByRole("button", { name: "Menu", exact: true }).waitFor();
  return v;
}

/** Makes a session of the visitor's with a cell. */
async function withCell(v: Visit, code: string): Promise<{ id: string; item: string }> {
  const send = async (path: string, data: unknown) => (await v.context.request.post(path, { data })).json();
  const { id } = await send("/v1/sessions", {});
  const item = await send(`/v1/sessions/${id}/items`, { kind: "cell", code });
  return { id, item: item.id };
}

const code = async (v: Visit, id: string) =>
  ((await (await v.context.request.get(`/v1/sessions/${id}`)).json()) as { items: { code: string }[] }).items[0]?.code;
const toasts = (page: Page) => page.locator("[data-sonner-toast]");
const kept = (page: Page) => page.evaluate(() => Object.entries(localStorage).flat().join("\n"));
const door = (page: Page) => page.getByRole("heading", { level: 1, name: "You are signed out" });

/** Types into the first cell, as a person does. */
async function type(page: Page, text: string): Promise<void> {
  await page.locator("[data-cell] .code-editor").first().click();
  await page.locator("[data-cell] .cm-content").first().waitFor();
  await page.keyboard.press("Control+End");
  await page.keyboard.type(text);
}

describe("signed out in the middle of work", () => {
  test("the page asks, shows nothing meanwhile, and then goes on with all that was typed", async () => {
    const v = await as("bob");
    const { id } = await withCell(v, "a = 1");
    await v.page.goto(sessionURL(server, id));
    await type(v.page, "\nb = 2");
    await until("it is saved", async () => (await code(v, id)) === "a = 1\nb = 2");
    await v.context.clearCookies();
    await v.page.keyboard.type("\nc = 3");
    await door(v.page).waitFor();
    await v.page.getByText("Nothing you typed is lost").waitFor();
    const covered = await v.page.evaluate(() => {
      const box = document.querySelector("[data-cell]")?.getBoundingClientRect();
      return box !== undefined && !document.elementFromPoint(box.x + 60, box.y + 20)?.closest("[data-cell]");
    });
    expect(covered, "the cell is out of sight").toBe(true);
    expect(await findings(v.page)).toEqual([]);
    // The keys are the dialog's, also those of the page behind it.
    await v.page.keyboard.press("Escape");
    await door(v.page).waitFor();

    await v.page.getByLabel("E-mail address").fill(address("bob"));
    await v.page.getByLabel("Password", { exact: true }).fill("wrong");
    await v.page.keyboard.press("Enter");
    await v.page.getByRole("alert").getByText("Address and password do not belong together.").waitFor();
    await v.page.getByLabel("Password", { exact: true }).fill(password);
    await v.page.keyboard.press("Enter");
    await door(v.page).waitFor({ state: "hidden" });
    await v.page.locator("[data-cell]").getByText("c = 3").waitFor();
    await until("what was typed arrives by itself", async () => (await code(v, id)) === "a = 1\nb = 2\nc = 3");
    await type(v.page, "\nprint(a + b + c)");
    await v.page.keyboard.press("Shift+Enter");
    await thread(v.page).cell(0).getByText("6", { exact: true }).waitFor({ timeout: 60_000 });
    expect(await toasts(v.page).count()).toBe(0);
    await v.close();
  });

  test("with a provider another tab signs in, and the one with the work stays", async () => {
    const who = { sub: "carol-1", email: address("carol"), email_verified: true, name: "Carol", groups: ["staff"] };
    await issuer.next(who);
    const v = await visit(browser, server, { login: false });
    await v.open();
    await v.page.getByRole("link", { name: "Sign in with Company" }).click();
    await newSession(v.page).waitFor();
    const { id } = await withCell(v, "x = 1");
    await v.page.goto(sessionURL(server, id));
    await v.page.locator("[data-cell]").waitFor();
    await v.context.clearCookies();
    await type(v.page, "\ny = 2");
    await door(v.page).waitFor();
    await issuer.next(who);
    const opened = v.context.waitForEvent("page");
    await v.page.getByRole("link", { name: "Sign in with Company" }).click();
    const tab = await opened;
    await tab.getByRole("heading", { name: "You are signed in" }).waitFor();
    expect(new URL(tab.url()).hash).toBe("");
    expect(await findings(tab)).toEqual([]);
    await door(v.page).waitFor({ state: "hidden" });
    await until("what was typed arrives by itself", async () => (await code(v, id)) === "x = 1\ny = 2");
    await v.close();
  });
});

describe("two people in one browser", () => {
  const secret = "the takeover price is 41";

  test("who signs out leaves nothing, also not for the way back", async () => {
    const v = await as("bob");
    await v.page.locator("[data-composer]").first().click();
    await v.page.keyboard.type(`# ${secret}`);
    await until("the draft is kept", async () => (await kept(v.page)).includes(secret));
    await until("the session has an address", () => v.page.url().includes("/s/"));
    await openMenu(v.page, "Sign out");
    await v.page.getByLabel("E-mail address").waitFor();
    expect(await kept(v.page)).not.toContain(secret);
    const stores = await v.page.evaluate(async () => ({
      caches: "caches" in window ? await caches.keys() : [],
      bases: (await indexedDB.databases()).map((base) => base.name),
      workers: (await navigator.serviceWorker?.getRegistrations())?.length ?? 0,
      session: sessionStorage.length,
    }));
    expect(stores).toEqual({ caches: [], bases: [], workers: 0, session: 0 });
    await v.page.goBack();
    await v.page.getByLabel("E-mail address").waitFor();
    expect(await v.page.content()).not.toContain(secret);

    await signIn(v, address("ann"));
    await newSession(v.page).waitFor();
    await v.page.locator("[data-composer]").first().waitFor();
    expect(await v.page.content()).not.toContain(secret);
    await v.close();
  });

  test("who comes after somebody whose sign-in ended finds nothing of his, and his other tab begins anew", async () => {
    const v = await as("bob");
    await v.page.locator("[data-composer]").first().click();
    await v.page.keyboard.type(`# ${secret}`);
    await until("the draft is kept", async () => (await kept(v.page)).includes(secret));
    await v.context.clearCookies();
    // By a link or a provider the next one can come without the page having been asked.
    const answer = await v.context.request.post("/v1/login", { data: { email: address("ann"), password } });
    expect(answer.ok()).toBe(true);
    const next = await v.context.newPage();
    const seen: string[] = [];
    await next.exposeFunction("seen", (text: string) => seen.push(text));
    await next.addInitScript(() => {
      new MutationObserver(() =>
        (window as unknown as { seen(text: string): void }).seen(document.body?.textContent ?? ""),
      ).observe(document, { childList: true, subtree: true, characterData: true });
    });
    await next.goto(server.url);
    await newSession(next).waitFor();
    await next.locator("[data-composer]").first().waitFor();
    expect(seen.length).toBeGreaterThan(0);
    expect(
      seen.some((text) => text.includes(secret)),
      "not for a moment",
    ).toBe(false);
    expect(await kept(next)).not.toContain(secret);
    await until("the tab of before is the next one's", async () => {
      const text = await v.page.content();
      return !text.includes(secret) && (await newSession(v.page).isVisible());
    });
    await v.close();
  });

  test("who signs in over the work of another does not get it", async () => {
    const v = await as("bob");
    const { id } = await withCell(v, "secret = 41");
    await v.page.goto(sessionURL(server, id));
    await v.page.locator("[data-cell]").waitFor();
    await v.context.clearCookies();
    await type(v.page, "\nmore = 2");
    await door(v.page).waitFor();
    await v.page.getByLabel("E-mail address").fill(address("lim"));
    await v.page.getByLabel("Password", { exact: true }).fill(password);
    await v.page.keyboard.press("Enter");
    await newSession(v.page).waitFor();
    await until("the page is anew", () => new URL(v.page.url()).pathname === "/");
    expect(await v.page.content()).not.toContain("secret = 41");
    await v.close();
  });
});

test("a viewer looks: nothing that changes is to be had, and each try is answered in place", async () => {
  const v = await as("vic");
  const { id, item } = await withCell(v, "1 + 1");
  const post = (path: string, data?: unknown) => v.context.request.post(`/v1/sessions/${id}/${path}`, { data });
  await post("items", { kind: "note", text: "a note" });
  await post("run", { items: [item] });
  await v.context.request.put(`/v1/sessions/${id}/files/content?path=/workspace/a.txt`, { data: "text" });
  await v.page.goto(sessionURL(server, id));
  await thread(v.page).status(0, "ok", 60_000);
  await server.api("PATCH", `/v1/users/${address("vic")}`, { role: "viewer", organisation_id: acme });
  await v.page.reload();
  const said = v.page.getByText("You are a viewer in this organisation: you can look, and not run");
  await said.waitFor();
  await v.page.locator("[data-cell]").waitFor();
  const tries = async () => Number(await v.page.locator("[data-tried]").getAttribute("data-tried"));
  const refused = async (what: string, work: () => Promise<unknown>) => {
    const before = await tries();
    await work();
    await until(`${what} is answered`, async () => (await tries()) > before);
    expect(await toasts(v.page).count(), what).toBe(0);
  };
  expect(await v.page.locator(".cm-content").count()).toBe(0);
  expect(await v.page.getByRole("textbox", { name: "Message" }).count()).toBe(0);
  expect(await v.page.getByRole("button", { name: /Add code/ }).count()).toBe(0);
  const button = v.page
    .locator("[data-cell]")
    .getByRole("button", { name: "Read-only: as a viewer you can't run cells" });
  expect(await button.getAttribute("aria-disabled")).toBe("true");
  await button.click({ force: true });
  await v.page.locator("[data-entry]").first().focus();
  for (const keys of ["Shift+Enter", "Control+Enter", "Alt+Enter", "b", "x", "m", "Control+Shift+ArrowDown"]) {
    await refused(keys, async () => {
      await v.page.locator("[data-entry]").first().focus();
      await v.page.keyboard.press(keys);
    });
  }
  await refused("two keys", async () => {
    await v.page.locator("[data-entry]").first().focus();
    await v.page.keyboard.press("d");
    await v.page.keyboard.press("d");
  });
  await refused("a drop", () => dropFiles(v.page, [{ name: "b.txt", text: "b" }]));
  await refused("a paste", () =>
    v.page.evaluate(() => {
      const clipboardData = new DataTransfer();
      clipboardData.items.add(new File(["c"], "c.txt"));
      document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
    }),
  );
  await v.page.getByRole("tab", { name: /^Files/ }).click();
  const file = v.page.getByRole("treeitem", { name: /a\.txt/ });
  await file.waitFor();
  expect(await v.page.getByRole("button", { name: "Upload files" }).count()).toBe(0);
  for (const keys of ["F2", "Delete"]) {
    await refused(keys, async () => {
      await file.click({ modifiers: ["Control"] });
      await v.page.keyboard.press(keys);
    });
  }
  await file.click({ button: "right" });
  await v.page.getByRole("menuitem", { name: "Download" }).waitFor();
  expect(await v.page.getByRole("menuitem", { name: /Rename|Delete/ }).count()).toBe(0);
  await v.page.keyboard.press("Escape");
  await v.page.getByRole("tab", { name: /^Variables/ }).click();
  await v.page.getByText("Variables are not shown to viewers").waitFor();
  await v.page.keyboard.press("Control+k");
  await v.page.getByRole("option", { name: /Show files/ }).waitFor();
  expect(await v.page.getByRole("option", { name: /Add a cell|Run all|New session|Delete/ }).count()).toBe(0);
  await v.page.keyboard.press("Escape");
  expect(await findings(v.page)).toEqual([]);
  expect(await code(v, id)).toBe("1 + 1");
  await v.close();
});

test("a limit that is reached says which, how much, and when; the code stays, and can be run then", async () => {
  const v = await as("lim");
  const { id } = await withCell(v, "1 + 1");
  await v.page.goto(sessionURL(server, id));
  const t = thread(v.page);
  await v.page.locator("[data-cell]").waitFor();
  await type(v.page, "\n'kept'");
  const shown = toasts(v.page).filter({ hasText: "Limit reached: Executions, this minute" });
  await until(
    "the limit",
    async () => {
      if (await shown.isVisible()) return true;
      if ((await t.cell(0).getAttribute("data-status")) === "running") return false;
      await v.page.locator("[data-cell]").getByRole("button", { name: "Run", exact: true }).click({ timeout: 2000 });
      await new Promise((done) => setTimeout(done, 300));
      return false;
    },
    60_000,
  );
  const text = await shown.textContent();
  expect(text).toContain("You use 2 of 2.");
  expect(text).toMatch(/There is more in \d+ s, at \d/);
  await shown.getByRole("button", { name: "Try again" }).waitFor();
  expect(await findings(v.page)).toEqual([]);
  expect(await code(v, id)).toBe("1 + 1\n'kept'");
  await v.page.goto(`${server.url}/#account/usage`);
  await v.page.getByText(/^\d of 2$/).waitFor(); // the minute may be over
  await v.close();
});

test("an admin disables somebody, who is out at once, and lets him in again; the audit has it, by time too", async () => {
  const dis = await as("dis");
  const { id } = await withCell(dis, "1");
  const { secret } = (await (
    await dis.context.request.post("/v1/keys", { data: { name: "of dis", scopes: ["sessions:read"] } })
  ).json()) as { secret: string };
  // What the key follows ends with it.
  const stream = run("curl", [
    "-sN",
    "-m",
    "30",
    "-H",
    `Authorization: Bearer ${secret}`,
    `${server.url}/v1/sessions/${id}/events`,
  ]).then(
    () => "ended",
    (err: { code: number }) => (err.code === 28 ? "went on" : "ended"),
  );
  const v = await as("ann");
  await v.page.goto(`${server.url}/#admin/users`);
  await section(v.page, "Users").waitFor();
  await v.page.getByRole("searchbox", { name: "Find" }).fill("dis@");
  await until(
    "one is left",
    async () => (await v.page.getByRole("list", { name: "Users" }).getByRole("listitem").count()) === 1,
  );
  await v.page.getByRole("button", { name: "More for Dis" }).click();
  await v.page.getByRole("menuitem", { name: "Disable" }).click();
  await v.page.getByRole("dialog").getByText("They are signed out at once").waitFor();
  await v.page.getByRole("dialog").getByRole("button", { name: "Disable" }).click();
  await row(v.page, address("dis")).getByText("disabled", { exact: true }).waitFor();
  expect(await stream).toBe("ended");
  const answer = await fetch(`${server.url}/v1/sessions`, { headers: { Authorization: `Bearer ${secret}` } });
  expect(answer.status).toBe(401);
  await dis.page.getByRole("searchbox").first().fill("x");
  await door(dis.page).waitFor();
  await dis.page.getByLabel("E-mail address").fill(address("dis"));
  await dis.page.getByLabel("Password", { exact: true }).fill(password);
  await dis.page.keyboard.press("Enter");
  await dis.page
    .getByRole("alert")
    .getByText("Address and password do not belong together.") // to strangers he is nobody
    .waitFor();

  await v.page.getByRole("button", { name: "More for Dis" }).click();
  await v.page.getByRole("menuitem", { name: "Enable" }).click();
  await row(v.page, address("dis")).getByText("disabled", { exact: true }).waitFor({ state: "hidden" });
  await dis.page.keyboard.press("Enter");
  await door(dis.page).waitFor({ state: "hidden" });
  await dis.close();

  await v.page.goto(`${server.url}/#admin/audit`);
  await v.page.getByLabel("Time").selectOption({ label: "The last hour" });
  await v.page.getByLabel("Action").selectOption("update-user");
  await row(v.page, "changed a user").waitFor();
  expect(await findings(v.page)).toEqual([]);
  await v.close();
});

describe("from outside", () => {
  test("a page of another origin does nothing with the cookie, shows the page in no frame, and gets nobody signed in elsewhere", async () => {
    const v = await as("ann");
    const { paths } = await server.api<{ paths: Record<string, Record<string, unknown>> }>("GET", "/openapi.json");
    const from = { Origin: "https://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors" };
    const open: string[] = [];
    for (const [path, methods] of Object.entries(paths)) {
      for (const method of Object.keys(methods).filter((m) => ["post", "put", "patch", "delete"].includes(m))) {
        const to = path.replaceAll(/\{[^}]+\}/g, "x");
        const answer = await v.context.request.fetch(to, { method, headers: from, data: "{}", maxRedirects: 0 });
        if (answer.status() !== 403) open.push(`${method} ${path}: ${answer.status()}`);
      }
    }
    expect(open, "changes that a page of another origin may ask for").toEqual([]);
    // What is somebody's own stays in no cache, and is read by no other page.
    for (const path of ["/v1/me", "/v1/keys", "/v1/sessions", "/v1/audit", "/v1/users", "/v1/usage", "/v1/me/logins"]) {
      const own = await v.context.request.get(path);
      expect([own.status(), own.headers()["cache-control"]], path).toEqual([200, "no-store"]);
      expect(own.headers()["cross-origin-resource-policy"], path).toBe("same-origin");
      expect((await v.context.request.get(path, { headers: from })).status(), path).toBe(401);
    }

    // A page that shows ours in a frame, as one does who wants clicks.
    const evil = createServer((_, answer) => {
      answer.setHeader("Content-Type", "text/html");
      answer.end(`<iframe src="${server.url}/" width="800" height="600"></iframe>`);
    });
    await new Promise<void>((done) => evil.listen(0, "127.0.0.1", done));
    const framing = await v.context.newPage();
    await framing.goto(`http://localhost:${(evil.address() as AddressInfo).port}/`);
    const frame = framing.frames().at(-1);
    await until("the frame is refused", () => frame?.url().startsWith("chrome-error:"));
    evil.close();

    // Wherever a link wants the sign-in to end, it ends here.
    for (const to of [
      "//evil.example",
      "https://evil.example/",
      "/\\evil.example",
      "/%09/evil.example",
      "javascript:alert(1)",
    ]) {
      await issuer.next({ sub: "carol-1", email: address("carol"), email_verified: true, groups: ["staff"] });
      const c = await visit(browser, server, { login: false });
      await c.page.goto(`${server.url}/v1/sign-in/oidc/company?return=${encodeURIComponent(to)}`);
      expect(new URL(c.page.url()).origin, to).toBe(server.url);
      await c.close();
    }
    // An answer of the provider that belongs to another browser signs nobody in.
    const c = await visit(browser, server, { login: false });
    await c.page.goto(`${server.url}/v1/sign-in/oidc/company/return?code=x&state=y`);
    await c.page.getByRole("alert").getByText("belongs to no sign-in of this browser").waitFor();
    await c.close();
    await v.close();
  });

  test("secrets are in no address, no history and no log", async () => {
    const { url } = await server.api<{ url: string }>("POST", `/v1/users/${address("bob")}/link`);
    const secret = url.split("=").at(-1) ?? "";
    const v = await visit(browser, server, { login: false });
    const asked: string[] = [];
    v.page.on("request", (request) => asked.push(`${request.url()} ${JSON.stringify(request.headers())}`));
    await v.page.goto(url);
    await v.page.getByRole("heading", { name: "Choose a password" }).waitFor();
    expect(v.page.url()).not.toContain(secret);
    await v.page.getByLabel("Password", { exact: true }).fill(password);
    await v.page.keyboard.press("Enter");
    await newSession(v.page).waitFor();
    await v.page.goBack().catch(() => null);
    expect(v.page.url()).not.toContain(secret);
    expect(asked.some((line) => line.includes(secret))).toBe(false);
    for (const word of [secret, password]) expect(server.log()).not.toContain(word);
    await v.close();
  });
});
