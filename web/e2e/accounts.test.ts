// Who is who: the first user, sign-in by password and by a provider, keys, roles, the audit.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type Browser,
  findings,
  type Issuer,
  newSession,
  openMenu,
  password,
  row,
  type Server,
  section,
  signIn,
  startBrowser,
  startIssuer,
  startServer,
  until,
  type Visit,
  visit,
} from "./lib";

const curl = promisify(execFile);

let issuer: Issuer;
let server: Server;
let browser: Browser;

beforeAll(async () => {
  issuer = await startIssuer();
  server = await startServer({
    auth: "accounts",
    env: issuer.env,
    config: `${issuer.config("role_claim: groups\nroles: {staff: member, guests: viewer}")}
limits: {default: {sandboxes: 3, cpu_per_day: 8h}, organisations: {Acme: {sandboxes: 10}}}
`,
  });
  browser = await startBrowser();
});
afterAll(async () => {
  await browser?.close();
  await server?.stop();
  await issuer?.stop();
});

/** What the browser itself says of answers that are no success is not a mistake of the page. */
const mistakes = (v: Visit) => v.errors.filter((text) => !text.startsWith("Failed to load resource"));

async function status(key: string): Promise<string> {
  const { stdout } = await curl("curl", [
    "-s",
    "-o",
    "/dev/null",
    "-w",
    "%{http_code}",
    "-H",
    `Authorization: Bearer ${key}`,
    `${server.url}/v1/sessions`,
  ]);
  return stdout;
}

// In this order: an installation as it grows.
describe("from the first start on", () => {
  test("who comes too early is told of the link; the link makes the first user, once", async () => {
    const early = await visit(browser, server, { login: false });
    await early.open();
    await early.page.getByText("There are no users yet.").waitFor();
    expect(await findings(early.page)).toEqual([]);
    await early.close();

    expect(server.setup).toContain("/#setup=");
    const v = await visit(browser, server, { login: false });
    await v.page.goto(server.setup);
    await v.page.getByRole("heading", { name: "Set up this server" }).waitFor();
    expect(v.page.url(), "the secret leaves the address").not.toContain("setup");
    expect(await findings(v.page)).toEqual([]);
    await v.page.getByLabel("E-mail address").fill("ann@example.org");
    await v.page.getByLabel("Name").fill("Ann");
    await v.page.getByLabel("Organisation").fill("Acme");
    await v.page.getByLabel("Password", { exact: true }).fill("short");
    await v.page.keyboard.press("Enter");
    await v.page.getByRole("alert").getByText("at least 10 characters").waitFor();
    await v.page.getByLabel("Password", { exact: true }).fill(password);
    await v.page.keyboard.press("Enter");
    await newSession(v.page).waitFor();
    // No script can read what keeps her signed in.
    expect(await v.page.evaluate(() => document.cookie)).toBe("");

    await v.page.getByRole("button", { name: "Menu", exact: true }).click();
    await v.page.getByText("Acme · owner").waitFor();
    await v.page.getByRole("menuitem", { name: "Administration" }).waitFor();
    await v.page.keyboard.press("Escape");
    expect(mistakes(v)).toEqual([]);
    await v.close();

    const late = await visit(browser, server, { login: false });
    await late.page.goto(server.setup);
    await late.page.getByLabel("E-mail address").fill("eve@example.org");
    await late.page.getByLabel("Password", { exact: true }).fill(password);
    await late.page.keyboard.press("Enter");
    await late.page.getByRole("alert").getByText("This link can't be used").waitFor();
    await late.page.getByRole("button", { name: "Go to sign-in" }).click();
    await late.page.getByRole("button", { name: "Sign in", exact: true }).waitFor();
    await late.close();
  });

  test("a wrong password is said in the server's words, and the right one lets in", async () => {
    const v = await visit(browser, server, { login: false });
    await signIn(v, "ann@example.org", "not the password");
    await v.page.getByRole("alert").getByText("Address and password do not belong together.").waitFor();
    await v.page.getByLabel("Password", { exact: true }).fill(password);
    await v.page.keyboard.press("Enter");
    await newSession(v.page).waitFor();
    await v.close();
  });

  test("an admin makes a user; the link sets the password; out again, here and everywhere", async () => {
    const v = await visit(browser, server, { login: false });
    await v.context.grantPermissions(["clipboard-read", "clipboard-write"]);
    await signIn(v, "ann@example.org");
    await newSession(v.page).waitFor();
    await openMenu(v.page, "Administration");
    await section(v.page, "Users").waitFor();
    await v.page.getByRole("button", { name: "New user" }).click();
    await v.page.getByLabel("E-mail address").fill("bob@example.org");
    await v.page.getByLabel("Name", { exact: true }).fill("Bob");
    expect(await findings(v.page)).toEqual([]);
    await v.page.getByRole("button", { name: "Make the user" }).click();
    const link = await v.page.getByLabel("Link", { exact: true }).inputValue();
    expect(link).toContain(`${server.url}/#set-password=`);
    await v.page.getByRole("button", { name: "Copy", exact: true }).click();
    await v.page.getByRole("button", { name: "Copied" }).waitFor();
    expect(await v.page.evaluate(() => navigator.clipboard.readText())).toBe(link);
    await v.page.getByRole("button", { name: "Close" }).last().click();
    await row(v.page, "bob@example.org").getByText("never signed in").waitFor();
    // Her own role is not hers to change.
    expect(await row(v.page, "ann@example.org").getByRole("combobox").count()).toBe(0);

    const bob = await visit(browser, server, { login: false });
    await bob.page.goto(link);
    await bob.page.getByRole("heading", { name: "Choose a password" }).waitFor();
    await bob.page.getByLabel("Password", { exact: true }).fill(password);
    await bob.page.keyboard.press("Enter");
    await newSession(bob.page).waitFor();
    const second = await visit(browser, server, { login: false });
    await signIn(second, "bob@example.org");
    await newSession(second.page).waitFor();

    await openMenu(bob.page, "Account and keys");
    await section(bob.page, "Profile").waitFor();
    await bob.page.getByText("this browser").waitFor();
    await until("two browsers", async () => (await bob.page.getByText(/Chrome, Linux/).count()) === 2);
    // He is a member: there is no administration for him, also not by its address.
    expect(await bob.page.getByRole("link", { name: "Users" }).count()).toBe(0);
    await bob.page.goto(`${server.url}/#admin/users`);
    await bob.page.getByText("This is for admins").waitFor();
    await bob.page.getByText("You are member in Acme.").waitFor();
    await bob.page.goto(`${server.url}/#account/profile`);
    await bob.page.getByRole("button", { name: "Sign out everywhere" }).click();
    await bob.page.getByRole("dialog").getByRole("button", { name: "Sign out everywhere" }).click();
    await bob.page.getByLabel("E-mail address").waitFor();
    // The other browser learns it with the next thing it asks.
    await second.page.getByRole("searchbox").first().fill("x");
    await second.page.getByLabel("E-mail address").waitFor();
    await bob.close();
    await second.close();

    await v.page.getByRole("button", { name: "Back to the sessions" }).first().click();
    await openMenu(v.page, "Sign out");
    await v.page.getByLabel("E-mail address").waitFor();
    await v.close();
  });

  test("with OpenID Connect: sign in, make a key, use it, see it in the audit, revoke it, be refused", async () => {
    await issuer.next({
      sub: "carol-1",
      email: "carol@example.org",
      email_verified: true,
      name: "Carol",
      groups: ["staff"],
    });
    const v = await visit(browser, server, { login: false });
    await v.open();
    await v.page.getByRole("link", { name: "Sign in with Company" }).click();
    await newSession(v.page).waitFor();

    await openMenu(v.page, "Account and keys");
    await v.page.getByRole("link", { name: "API keys" }).click();
    await section(v.page, "API keys").waitFor();
    await v.page.getByText("No keys yet").waitFor();
    await v.page.getByRole("button", { name: "New key" }).click();
    await v.page.getByRole("button", { name: "Make the key" }).click();
    await v.page.getByRole("alert").getByText("Give it a name").waitFor();
    await v.page.getByLabel("Name", { exact: true }).fill("nightly report");
    await v.page.getByLabel("Only what is chosen here").check();
    // A member can't give what admins have.
    expect(await v.page.getByRole("checkbox").count()).toBeGreaterThan(5);
    expect(await v.page.locator("[value='admin:read']").count()).toBe(0);
    await v.page.locator("[value='sessions:read']").check();
    expect(await findings(v.page)).toEqual([]);
    await v.page.getByRole("button", { name: "Make the key" }).click();
    const secret = await v.page.getByLabel("Key", { exact: true }).inputValue();
    expect(secret).toMatch(/^csk_[a-z0-9]+_/);
    const id = secret.split("_").slice(0, 2).join("_");
    const example = await v.page.getByLabel("Use it so:").inputValue();
    expect(await findings(v.page)).toEqual([]);

    // Nobody leaves without it by mistake.
    await v.page.keyboard.press("Escape");
    await v.page.getByRole("alert").getByText("You have not copied the key").waitFor();

    // The example as it stands is a call that works.
    const { stdout } = await curl("bash", ["-c", `${example} -s`]);
    expect(JSON.parse(stdout)).toHaveProperty("sessions");
    const refused = await fetch(`${server.url}/v1/sandboxes`, { headers: { Authorization: `Bearer ${secret}` } });
    expect(await refused.json()).toMatchObject({ code: "scope-missing" });

    await v.page.getByRole("button", { name: "I have copied it" }).click();
    await row(v.page, "nightly report").getByText("sessions:read").waitFor();
    expect(await v.page.content(), "the key is shown once").not.toContain(secret);

    // Ann is the admin: she sees it.
    const ann = await visit(browser, server, { login: false });
    await signIn(ann, "ann@example.org");
    await newSession(ann.page).waitFor();
    await ann.page.goto(`${server.url}/#admin/audit`);
    await section(ann.page, "Audit").waitFor();
    await ann.page.getByLabel("Object").fill(id);
    await until("the entry of the key", async () => {
      await ann.page.getByLabel("Object").fill("");
      await ann.page.getByLabel("Object").fill(id);
      return (await ann.page.getByText("made a key").last().isVisible()) && (await row(ann.page, id).isVisible());
    });
    await row(ann.page, id).getByText("Carol").waitFor();
    expect(await findings(ann.page)).toEqual([]);

    await row(v.page, "nightly report").getByRole("button", { name: "Revoke" }).click();
    await v.page.getByRole("dialog").getByText("It can't be taken back.").waitFor();
    await v.page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
    await v.page.getByText("The key is revoked").waitFor();
    expect(await status(secret)).toBe("401");
    await v.page.getByRole("button", { name: "Show 1 that is no longer valid" }).click();
    await row(v.page, "nightly report").getByText("revoked", { exact: true }).waitFor();
    expect(mistakes(v)).toEqual([]);
    await v.close();
    await ann.close();
  });

  test("a rotated key works beside the new one, an admin revokes both", async () => {
    const v = await visit(browser, server, { login: false });
    await signIn(v, "bob@example.org");
    await newSession(v.page).waitFor();
    await v.page.goto(`${server.url}/#account/keys`);
    await v.page.getByRole("button", { name: "New key" }).click();
    await v.page.getByLabel("Name", { exact: true }).fill("worker");
    await v.page.keyboard.press("Enter");
    const first = await v.page.getByLabel("Key", { exact: true }).inputValue();
    await v.page.getByRole("button", { name: "I have copied it" }).click();
    await v.page.getByRole("button", { name: "Rotate: worker" }).click();
    await v.page.getByRole("button", { name: "Make the new key" }).click();
    await v.page.getByLabel("Key", { exact: true }).waitFor();
    const second = await v.page.getByLabel("Key", { exact: true }).inputValue();
    expect(second).not.toBe(first);
    expect([await status(first), await status(second)]).toEqual(["200", "200"]);
    await v.close();

    const ann = await visit(browser, server, { login: false });
    await signIn(ann, "ann@example.org");
    await newSession(ann.page).waitFor();
    await ann.page.goto(`${server.url}/#admin/all-keys`);
    for (const left of [1, 0]) {
      await ann.page.getByRole("button", { name: "Revoke: worker" }).first().click();
      await ann.page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
      await until(
        "one less",
        async () => (await ann.page.getByRole("button", { name: "Revoke: worker" }).count()) === left,
      );
    }
    expect([await status(first), await status(second)]).toEqual(["401", "401"]);
    await ann.close();
  });

  test("who has no role at the provider's is told why, and nobody gets in by a refusal", async () => {
    await issuer.next({ sub: "dan-1", email: "dan@example.org", email_verified: true, groups: ["others"] });
    const v = await visit(browser, server, { login: false });
    await v.open();
    await v.page.getByRole("link", { name: "Sign in with Company" }).click();
    await v.page.getByRole("alert").getByText("names no group of yours that has a role here").waitFor();
    expect(v.page.url()).not.toContain("failed");
    expect(await findings(v.page)).toEqual([]);
    await issuer.next(null);
    await v.page.getByRole("link", { name: "Sign in with Company" }).click();
    await v.page.getByRole("alert").getByText("The provider did not let you in.").waitFor();
    await v.close();
  });

  test("a viewer is offered nothing that makes or runs, and told why", async () => {
    await issuer.next({
      sub: "vic-1",
      email: "vic@example.org",
      email_verified: true,
      name: "Vic",
      groups: ["guests"],
    });
    const v = await visit(browser, server, { login: false });
    await v.open();
    await v.page.getByRole("link", { name: "Sign in with Company" }).click();
    await v.page.getByText("You are a viewer in this organisation: you can look, and not run").waitFor();
    expect(await v.page.getByRole("button", { name: "New session" }).count()).toBe(0);
    expect(await v.page.getByRole("textbox", { name: "Message" }).count()).toBe(0);
    expect(await findings(v.page)).toEqual([]);
    await v.page.goto(`${server.url}/#account/keys`);
    await v.page.getByRole("button", { name: "New key" }).click();
    await v.page.getByLabel("Only what is chosen here").check();
    expect(await v.page.locator("[value$=':execute']").count()).toBe(0);
    await v.page.getByText("What your role (viewer) may not do").waitFor();
    await v.page.keyboard.press("Escape");

    // An admin makes him a member; his open page learns it when it asks again.
    const ann = await visit(browser, server, { login: false });
    await signIn(ann, "ann@example.org");
    await newSession(ann.page).waitFor();
    await ann.page.goto(`${server.url}/#admin/users`);
    await ann.page.getByLabel("Role of Vic").selectOption("member");
    await until("the role", async () =>
      (await ann.context.request.get("/v1/users/vic@example.org").then((r) => r.text())).includes('"member"'),
    );
    await v.page.goto(server.url);
    await v.page.reload();
    await newSession(v.page).waitFor();
    expect(await v.page.getByText("You are a viewer").count()).toBe(0);
    await v.close();
    await ann.close();
  });

  test("an operator makes an organisation with users of its own; its sandboxes are seen and ended", async () => {
    const v = await visit(browser, server, { login: false });
    await signIn(v, "ann@example.org");
    await newSession(v.page).waitFor();
    await v.page.goto(`${server.url}/#admin/organisations`);
    await v.page.getByRole("button", { name: "New organisation" }).click();
    await v.page.getByLabel("Name", { exact: true }).fill("Babel");
    await v.page.keyboard.press("Enter");
    await v.page.getByRole("button", { name: "New organisation" }).click();
    await v.page.getByLabel("Name", { exact: true }).fill("Ozymandias");
    await v.page.keyboard.press("Enter");
    await v.page.getByRole("button", { name: "Delete: Ozymandias" }).click();
    await v.page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
    await v.page.getByText("Ozymandias").waitFor({ state: "detached" });
    await v.page.getByRole("button", { name: "See the users: Babel" }).click();
    await section(v.page, "Users").waitFor();
    await v.page.getByText("This organisation has no users.").waitFor();
    await v.page.getByLabel("Organisation", { exact: true }).selectOption({ label: "All organisations" });
    await row(v.page, "bob@example.org").getByText("Acme (member)").waitFor();

    const made = await v.page.evaluate(async () => {
      const answer = await fetch("/v1/sandboxes", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: "{}",
      });
      return (await answer.json()) as { id: string };
    });
    await v.page.getByRole("link", { name: "Sandboxes" }).click();
    await row(v.page, made.id).getByText("running").waitFor();
    await row(v.page, made.id).getByText("of ann@example.org").waitFor();
    expect(await findings(v.page)).toEqual([]);
    await v.page.getByRole("link", { name: "Usage of all" }).click();
    await row(v.page, "Ann").getByText("Sandboxes awake").waitFor();
    await row(v.page, "Ann").getByText("1 of 3", { exact: true }).waitFor();
    expect(await findings(v.page)).toEqual([]);
    await v.page.getByRole("link", { name: "Sandboxes" }).click();
    await v.page.getByRole("button", { name: `End: ${made.id}` }).click();
    await v.page.getByRole("dialog").getByRole("button", { name: "End" }).click();
    await v.page.getByText("No sandboxes").waitFor();
    expect(mistakes(v)).toEqual([]);
    await v.close();
  });
});

const looks = [
  { name: "light", dark: false, size: "desktop" },
  { name: "dark", dark: true, size: "desktop" },
  { name: "phone", dark: false, size: "phone" },
  { name: "phone in the dark", dark: true, size: "phone" },
] as const;

const parts = {
  "account/profile": "Profile",
  "account/keys": "API keys",
  "account/usage": "Usage and limits",
  "admin/users": "Users",
  "admin/organisations": "Organisations",
  "admin/all-keys": "Keys of all",
  "admin/sandboxes": "Sandboxes",
  "admin/all-usage": "Usage of all",
  "admin/audit": "Audit",
};

test("the audit is read page by page, and by who did what", async () => {
  const v = await visit(browser, server, { login: false });
  await signIn(v, "ann@example.org");
  await newSession(v.page).waitFor();
  for (let n = 0; n < 60; n++) {
    const answer = await v.context.request.patch("/v1/users/bob@example.org", { data: { name: `Bob ${n % 2}` } });
    expect(answer.status()).toBe(200);
  }
  await v.page.goto(`${server.url}/#admin/audit`);
  await section(v.page, "Audit").waitFor();
  const entries = v.page.getByRole("list", { name: "Audit" }).getByRole("listitem");
  const asked = v.page.waitForResponse((answer) => answer.url().includes("action=update-user"));
  await v.page.getByLabel("Action").selectOption("update-user");
  await asked;
  await until("a page of changes", async () => {
    const texts = await entries.allInnerTexts();
    return texts.length === 50 && texts.every((text) => text.includes("changed a user"));
  });
  await v.page.getByRole("button", { name: "Show older entries" }).click();
  await until("more than a page", async () => (await entries.count()) > 60);
  await v.page.getByLabel("User", { exact: true }).selectOption({ label: "Carol" });
  await v.page.getByText("No entries").waitFor();
  await v.page.getByRole("button", { name: "Clear the filters" }).click();
  await until("all again", async () => {
    const texts = await entries.allInnerTexts();
    if (texts.length !== 50) throw new Error(`${texts.length} entries, the first: ${texts[0]}`);
    return true;
  });
  await v.close();
});

describe.each(looks)("$name", ({ name, dark, size }) => {
  test("nothing is found and nothing is cut off", async () => {
    const v = await visit(browser, server, { login: false, dark, size });
    const look = async (what: string) => {
      await v.page.waitForFunction(() => !document.querySelector("main [role=status], main .skeleton"));
      const folder = process.env.SHOTS; // for people to look at
      if (folder)
        await v.page.screenshot({ path: `${folder}/${name.replaceAll(" ", "-")}-${what.replace("/", "-")}.png` });
      expect(await findings(v.page), what).toEqual([]);
      const wide = await v.page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      expect(wide, `pixels that ${what} is wider than the screen`).toBeLessThanOrEqual(0);
    };
    await v.open();
    await v.page.getByLabel("E-mail address").waitFor();
    await look("sign-in");
    await signIn(v, "ann@example.org");
    await v.page.getByRole("button", { name: "Menu", exact: true }).waitFor();
    for (const [hash, title] of Object.entries(parts)) {
      await v.page.goto(`${server.url}/#${hash}`);
      await section(v.page, title).waitFor();
      await look(hash);
    }
    expect(mistakes(v)).toEqual([]);
    await v.close();
  });
});

test("by keys alone: from the sign-in to a key", async () => {
  const v = await visit(browser, server, { login: false });
  await v.open();
  await v.page.getByLabel("E-mail address").waitFor();
  await v.page.keyboard.type("bob@example.org");
  await v.page.keyboard.press("Tab");
  await v.page.keyboard.type(password);
  await v.page.keyboard.press("Enter");
  await newSession(v.page).waitFor();
  await v.page.keyboard.press("Control+k");
  await v.page.getByPlaceholder("Search commands and sessions").waitFor(); // it comes when it is first asked for
  await v.page.keyboard.type("account and keys");
  await v.page.getByRole("option", { name: "Account and keys", selected: true }).waitFor();
  await v.page.keyboard.press("Enter");
  await section(v.page, "Profile").waitFor();
  await v.page.getByRole("link", { name: "API keys" }).focus();
  await v.page.keyboard.press("Enter");
  const button = v.page.getByRole("button", { name: "New key" });
  await button.focus();
  await v.page.keyboard.press("Enter");
  await v.page.getByRole("dialog").waitFor();
  await until("the name has the focus", () =>
    v.page.getByLabel("Name", { exact: true }).evaluate((field) => field === document.activeElement),
  );
  await v.page.keyboard.type("by keys");
  await v.page.keyboard.press("Escape");
  await v.page.getByRole("dialog").waitFor({ state: "hidden" });
  await until("the focus is back", () => button.evaluate((b) => b === document.activeElement));
  await v.close();
});

test("a tab in which another one signed in elsewhere shows nothing of the one before", async () => {
  const v = await visit(browser, server, { login: false });
  await signIn(v, "bob@example.org");
  await newSession(v.page).waitFor();
  await v.page.goto(`${server.url}/#account/profile`);
  await v.page.getByText("bob@example.org").first().waitFor();
  const other = await v.context.newPage();
  await other.goto(server.url);
  await openMenu(other, "Sign out");
  await other.getByLabel("E-mail address").fill("ann@example.org");
  await other.getByLabel("Password", { exact: true }).fill(password);
  await other.keyboard.press("Enter");
  await newSession(other).waitFor();
  await v.page.evaluate(() => window.dispatchEvent(new Event("focus")));
  await newSession(v.page).waitFor();
  await v.page.getByRole("button", { name: "Menu", exact: true }).click();
  await v.page.getByText("Acme · owner").waitFor();
  await v.close();
});

test("in German", async () => {
  const v = await visit(browser, server, { login: false, language: "de" });
  await v.open();
  await v.page.getByLabel("E-Mail-Adresse").fill("ann@example.org");
  await v.page.getByLabel("Passwort", { exact: true }).fill(password);
  await v.page.getByRole("button", { name: "Anmelden", exact: true }).click();
  await v.page.getByRole("button", { name: "Neue Sitzung" }).first().waitFor();
  await v.page.goto(`${server.url}/#admin/users`);
  await section(v.page, "Benutzer").waitFor();
  await row(v.page, "bob@example.org").waitFor();
  await v.close();
});

test("with a token all is as it was: no accounts in the menu", async () => {
  const guarded = await startServer({ auth: "token", config: "discover_models: false\n" });
  try {
    const v = await visit(browser, guarded);
    await v.open();
    await newSession(v.page).waitFor();
    await v.page.getByRole("button", { name: "Menu", exact: true }).click();
    await v.page.getByRole("menuitem", { name: "Log out" }).waitFor();
    expect(await v.page.getByRole("menuitem", { name: "Account and keys" }).count()).toBe(0);
    expect(await v.page.getByRole("menuitem", { name: "Administration" }).count()).toBe(0);
    await v.page.getByRole("menuitem", { name: "Log out" }).click();
    await v.page.getByLabel("Token").waitFor();
    await v.close();
  } finally {
    await guarded.stop();
  }
});
