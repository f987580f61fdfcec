// Who uses the page and what he may: known to all of it, so this is small.
import { create } from "zustand";
import type { Action, Me } from "./types";

/** undefined: not known (yet, or to a server that has no accounts). */
const useStore = create<{ me: Me | undefined }>(() => ({ me: undefined }));

let asking: Promise<boolean> | null = null;

/** Asks who this is; false: nobody, as far as the server knows. Says nothing to those who wait for a 401. */
export function loadMe(): Promise<boolean> {
  asking ??= ask().finally(() => {
    asking = null;
  });
  return asking;
}

async function ask(): Promise<boolean> {
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
  useStore.setState({ me });
  // In another tab somebody else signed in, or another organisation was chosen:
  // what is on this page is no longer theirs to see.
  if (before && whose(before) !== whose(me)) location.assign("/");
  return true;
}

const whose = (me: Me) => `${me.user_id ?? ""} ${me.organisation?.organisation_id ?? ""}`;

/** The user of this page. Where there are no accounts, there is none. */
export function useMe(): Me | undefined {
  return useStore((state) => (state.me?.auth === "accounts" ? state.me : undefined));
}

export function currentMe(): Me | undefined {
  return useStore.getState().me;
}

export function may(me: Me | undefined, action: Action): boolean {
  // Not known: offered. The server decides in any case.
  return me === undefined || (me.may ?? []).includes(action);
}

/** Whether to offer something. */
export function useMay(action: Action): boolean {
  return may(useMe(), action);
}
