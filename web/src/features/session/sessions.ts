// The list of sessions, and what can be done with any of them.
import { type InfiniteData, useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { navigate } from "wouter/use-browser-location";
import { call, sessionPath, withQuery } from "@/api/client";
import type { ModelList, Session, SessionList, UpdateSession } from "@/api/types";
import { mayChange } from "@/features/account/me";
import { queryClient } from "@/lib/query";
import { toast } from "@/ui/toast";
import { forget, storeOf } from "./store";
import { useStrings } from "./strings";

const pageSize = 50;

export function useSessions(query: string) {
  return useInfiniteQuery({
    queryKey: ["sessions", query],
    queryFn: ({ pageParam, signal }) =>
      call<SessionList>("GET", "/v1/sessions", {
        query: { query: query || undefined, limit: pageSize, cursor: pageParam || undefined },
        signal,
      }),
    initialPageParam: "",
    getNextPageParam: (last) => last.next || undefined,
    placeholderData: (before) => before, // no flicker while typing a search
    refetchOnWindowFocus: true,
  });
}

export function useModels() {
  return useQuery({
    queryKey: ["models"],
    queryFn: ({ signal }) => call<ModelList>("GET", "/v1/models", { signal }),
    staleTime: 60_000,
  });
}

export function refreshSessions(): void {
  void queryClient.invalidateQueries({ queryKey: ["sessions"] });
}

function editList(edit: (sessions: Session[]) => Session[]): void {
  queryClient.setQueriesData<InfiniteData<SessionList>>(
    { queryKey: ["sessions"] },
    (data) => data && { ...data, pages: data.pages.map((page) => ({ ...page, sessions: edit(page.sessions) })) },
  );
}

async function attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
  if (!mayChange()) return undefined;
  try {
    return await work();
  } catch (err) {
    toast.failure(err);
    return undefined;
  } finally {
    refreshSessions();
  }
}

export function pathOf(id: string): string {
  return `/s/${id}`;
}

const isOpen = (id: string) => location.pathname === pathOf(id);

export async function updateSession(id: string, change: UpdateSession): Promise<void> {
  editList((sessions) => sessions.map((session) => (session.id === id ? { ...session, ...change } : session)));
  if (isOpen(id)) storeOf(id).patchSession(change);
  await attempt(() => call<Session>("PATCH", sessionPath(id), { body: change }));
}

/** Deletes a session, and offers to take that back. */
export async function removeSession(session: Session): Promise<void> {
  const { id, title } = session;
  const wasOpen = isOpen(id);
  editList((sessions) => sessions.filter((other) => other.id !== id));
  if (wasOpen) navigate("/");
  const ok = await attempt(async () => {
    await call("DELETE", sessionPath(id));
    return true;
  });
  if (!ok) return;
  forget(id);
  const s = useStrings.now();
  toast.undo(s.removed(title || s.untitled), () =>
    attempt(async () => {
      await call("POST", sessionPath(id, "restore"));
      if (wasOpen && location.pathname === "/") navigate(pathOf(id));
    }),
  );
}

export async function duplicateSession(id: string): Promise<void> {
  const copy = await attempt(() => call<Session>("POST", sessionPath(id, "duplicate")));
  if (!copy) return;
  navigate(pathOf(copy.id));
  toast.success(useStrings.now().duplicated);
}

/** Makes a session of a notebook file. */
export async function importNotebook(file: File): Promise<void> {
  const title = file.name.replace(/\.ipynb$/i, "");
  const session = await attempt(() =>
    call<Session>("POST", "/v1/sessions/import", {
      body: file,
      query: { title },
      headers: { "Content-Type": "application/x-ipynb+json" },
    }),
  );
  if (!session) return;
  navigate(pathOf(session.id));
  toast.success(useStrings.now().imported);
}

/** Lets the person pick a notebook to import. */
export function pickNotebook(): void {
  const input = document.createElement("input");
  input.type = "file";
  input.accept = ".ipynb,application/x-ipynb+json";
  input.onchange = () => {
    const file = input.files?.[0];
    if (file) void importNotebook(file);
  };
  input.click();
}

export const exportFormats = ["ipynb", "py", "md"] as const;

export function exportURL(id: string, format: (typeof exportFormats)[number]): string {
  return withQuery(sessionPath(id, "export"), { format });
}

export type Age = "pinned" | "today" | "yesterday" | "earlier";

/** Puts sessions under the headings of the list, which keeps their order. */
export function groupByAge(sessions: readonly Session[], now = new Date()): { age: Age; sessions: Session[] }[] {
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
  const yesterday = new Date(now.getFullYear(), now.getMonth(), now.getDate() - 1).getTime();
  const groups = new Map<Age, Session[]>();
  for (const session of sessions) {
    const time = Date.parse(session.updated_at);
    const age = session.pinned ? "pinned" : time >= midnight ? "today" : time >= yesterday ? "yesterday" : "earlier";
    groups.set(age, [...(groups.get(age) ?? []), session]);
  }
  return (["pinned", "today", "yesterday", "earlier"] as const).flatMap((age) => {
    const inside = groups.get(age);
    return inside ? [{ age, sessions: inside }] : [];
  });
}
