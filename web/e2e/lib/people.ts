// What tests do with people's accounts, by what a person sees.
import type { Page } from "playwright-core";
import type { Visit } from "./browser";

export const password = "correct horse battery";

/** Signs somebody in who has a password, at the page's own form. */
export async function signIn(v: Visit, email: string, secret = password): Promise<void> {
  await v.open();
  await v.page.getByLabel("E-mail address").fill(email);
  await v.page.getByLabel("Password", { exact: true }).fill(secret);
  await v.page.getByRole("button", { name: "Sign in", exact: true }).click();
}

export const newSession = (page: Page) => page.getByRole("button", { name: "New session" }).first();

export async function openMenu(page: Page, entry: string): Promise<void> {
  await page.getByRole("button", { name: "Menu", exact: true }).click();
  await page.getByRole("menuitem", { name: entry }).click();
}

export const section = (page: Page, name: string) => page.getByRole("heading", { level: 1, name, exact: true });
export const row = (page: Page, text: string | RegExp) => page.getByRole("listitem").filter({ hasText: text }).first();
