// What stands behind the # of the address: a place of the page, or what a link
// or a provider brought along. The latter leaves the address at once, and is
// kept here: addresses end up in histories.
import { useSyncExternalStore } from "react";
import { navigate } from "wouter/use-browser-location";

export const accountSections = ["profile", "keys", "usage"] as const;
export const adminSections = ["users", "organisations", "all-keys", "sandboxes", "all-usage", "audit"] as const;
export type Section = (typeof accountSections)[number] | (typeof adminSections)[number];

/** What somebody came with. */
export type Arrival =
  | { kind: "setup" | "set-password"; secret: string }
  | { kind: "sign-in-failed"; code: string }
  | { kind: "token-refused" }
  | { kind: "signed-in" };

/** Where a provider sends a tab that was opened only to sign in. */
export const elsewhere = "#signed-in";

export function arrivalOf(hash: string): Arrival | null {
  if (hash === "#token-refused") return { kind: "token-refused" };
  if (hash === elsewhere) return { kind: "signed-in" };
  const found = /^#(setup|set-password|sign-in-failed)=([\w.~-]{1,200})$/.exec(hash);
  if (!found) return null;
  const [, kind, value = ""] = found;
  return kind === "sign-in-failed" ? { kind, code: value } : { kind: kind as "setup" | "set-password", secret: value };
}

export function sectionOf(hash: string): Section | null {
  const found = /^#(account|admin)\/([a-z-]+)$/.exec(hash);
  if (!found) return null;
  const list: readonly string[] = found[1] === "account" ? accountSections : adminSections;
  return list.includes(found[2] ?? "") ? (found[2] as Section) : null;
}

export function hashOf(section: Section): string {
  return `#${(accountSections as readonly string[]).includes(section) ? "account" : "admin"}/${section}`;
}

let arrival: Arrival | null = null;
const listeners = new Set<() => void>();
const tell = () => {
  for (const listener of listeners) listener();
};

function look(): void {
  const found = arrivalOf(location.hash);
  if (found) {
    arrival = found;
    history.replaceState(history.state, "", location.pathname + location.search);
  }
  tell();
}

if (typeof window !== "undefined") {
  look();
  // pushState and replaceState are events that wouter makes of the calls.
  for (const event of ["hashchange", "popstate", "pushState", "replaceState"]) {
    window.addEventListener(event, () => (event === "hashchange" ? look() : tell()));
  }
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** What the person came with, until forgetArrival. */
export function useArrival(): Arrival | null {
  return useSyncExternalStore(subscribe, () => arrival);
}

export function forgetArrival(): void {
  arrival = null;
  tell();
}

/** The part of account and administration that is open; null: the sessions are. */
export function useSection(): Section | null {
  return useSyncExternalStore(subscribe, () => sectionOf(location.hash));
}

export function openSection(section: Section): void {
  location.hash = hashOf(section);
}

/** Back to where one was before account or administration. */
export function closeSection(): void {
  navigate(location.pathname + location.search);
}
