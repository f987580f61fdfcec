// A first key makes a session, so that its sandbox is ready in time. Who then
// thinks better of it and goes elsewhere leaves nothing behind.
import { call, sessionPath } from "@/api/client";
import type { File, SessionDetail } from "@/api/types";
import { unfinished, useTransferStore } from "@/features/files/transfers";
import { remembered } from "@/lib/storage";
import { pathOf, refreshSessions } from "./sessions";
import { forget, type SessionStore } from "./store";

const made = new Set<string>();

/** Notes that this page made a session, which only it knows by now. */
export function madeHere(id: string): void {
  made.add(id);
}

/** What was sent when the person left has arrived by then. */
const settle = 1000;

/** To be called when a session is left: deletes it if nothing was done in it. */
export function left(store: SessionStore): void {
  const { id } = store.get();
  if (made.has(id) && looksEmpty(store))
    setTimeout(() => {
      if (location.pathname === pathOf(id) || !looksEmpty(store)) return;
      void remove(id).catch(() => {}); // an empty session too many is no harm
    }, settle);
}

function looksEmpty(store: SessionStore): boolean {
  const { id, session, order } = store.get();
  return (
    session !== null &&
    session.title === "" &&
    !session.pinned &&
    order.length === 0 &&
    !remembered(`draft.${id}`) &&
    !useTransferStore.getState().transfers.some((t) => t.sessionId === id && unfinished.has(t.status))
  );
}

async function remove(id: string): Promise<void> {
  const session = await call<SessionDetail>("GET", sessionPath(id));
  if (session.item_count > 0 || session.turn || session.queue.length > 0) return;
  for (const path of ["/workspace", "/uploaded_files"]) {
    const folder = await call<File>("GET", sessionPath(id, "files"), { query: { path } });
    if ((folder.entries ?? []).length > 0) return;
  }
  await call("DELETE", sessionPath(id));
  made.delete(id);
  forget(id);
  refreshSessions();
}
