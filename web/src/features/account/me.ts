// Who uses the page and what he may: known to all of it, so this is small.
import { create } from "zustand";
import { forgetPersonal, onRemembered, remember, remembered } from "@/lib/storage";
import type { Action, Me } from "./types";

interface State {
  /** undefined: not known (yet, or to a server that has no accounts). */
  me: Me | undefined;
  /** The server said who this is, or that it is nobody, or can't be reached. */
  answered: boolean;
  /** The page begins anew, and shows nothing until then. */
  gone: boolean;
}

const useStore = create<State>(() => ({ me: undefined, answered: false, gone: false }));

// Whose the drafts and marks in this browser are. What the page shows of them
// waits until the server says who is there.
const owner = "who";
const single = "local"; // where there are no accounts

/** When somebody signed in, for other tabs that wait for that. */
const moment = "signed-in";

let asking: Promise<boolean> | null = null;

/** Asks who this is; false: nobody, as far as the server knows. */
export function loadMe(): Promise<boolean> {
  asking ??= ask().finally(() => {
    asking = null;
  });
  return asking;
}

async function ask(): Promise<boolean> {
  try {
    return await whoIsIt();
  } finally {
    useStore.setState({ answered: true });
  }
}

async function whoIsIt(): Promise<boolean> {
  let answer: Response;
  try {
    answer = await fetch("/v1/me", { credentials: "same-origin" });
  } catch {
    return true; // not reached: that is no reason to ask anybody for a password
  }
  if (answer.status === 401) return false;
  if (!answer.ok) return true;
  let me: Me;
  try {
    me = (await answer.json()) as Me;
  } catch {
    return true; // somebody between us and the server answered
  }
  const before = useStore.getState().me;
  const person = me.auth === "accounts" ? (me.user_id ?? "") : single;
  const known = remembered(owner);
  const shown = known !== person && (known !== null || person !== single) && forgetPersonal();
  if (known !== person) remember(owner, person);
  // In another tab somebody else signed in, or another organisation was chosen:
  // what is on this page is no longer theirs to see. Nor is what was shown
  // before it was known who is there.
  if (before ? whose(before) !== whose(me) : shown && !waits(known)) {
    beginAnew();
    return new Promise(() => {}); // nothing goes on here
  }
  useStore.setState({ me });
  return true;
}

const whose = (me: Me) => `${me.user_id ?? ""} ${me.organisation?.organisation_id ?? ""}`;
const waits = (person: string | null) => person !== null && person !== single;

/** Leaves nothing of a person's on the page, also not for the browser's way back, and begins anew. */
export function beginAnew(): void {
  useStore.setState({ me: undefined, gone: true });
  location.assign("/");
}

/** Whether the page may show what this browser keeps of a person. */
export function useSettledPerson(): boolean {
  return useStore((state) => !state.gone && (state.answered || !waits(remembered(owner))));
}

/** Tells the other tabs that somebody signed in here. */
export function tellSignedIn(): void {
  remember(moment, String(Date.now()));
}

/** Follows what other tabs tell: somebody signed in, or out. */
export function onOtherTab(then: () => void): () => void {
  return onRemembered([owner, moment], (key, value) => {
    if (key === owner && value === null && useStore.getState().me?.auth === "accounts") beginAnew();
    else if (value !== null) then();
  });
}

/** The user of this page. Where there are no accounts, there is none. */
export function useMe(): Me | undefined {
  return useStore((state) => (state.me?.auth === "accounts" ? state.me : undefined));
}

export function currentMe(): Me | undefined {
  return useStore.getState().me;
}

export function may(me: Me | undefined, action: Action): boolean {
  // Not known: offered. The server decides in any case.
  return me === undefined || me.auth !== "accounts" || (me.may ?? []).includes(action);
}

/** Whether to offer something. */
export function useMay(action: Action): boolean {
  return may(useMe(), action);
}

/** The event by which the page is asked to say again why nothing can be changed. */
export const readOnlyEvent = "caesarion:read-only";

/** Whether the person may change things; if not, the page says why, where it always says it. */
export function mayChange(): boolean {
  if (may(currentMe(), "write")) return true;
  window.dispatchEvent(new Event(readOnlyEvent));
  return false;
}
