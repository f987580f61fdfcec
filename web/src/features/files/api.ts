import { call, sessionPath, withQuery } from "@/api/client";
import type { File } from "@/api/types";

/** A file as a session's routes have it. */
export interface Entry extends File {
  /** false: too large to be kept once the sandbox is gone. */
  kept?: boolean;
  /** Of a top folder: which files are not kept. */
  notice?: string;
  entries?: Entry[];
}

// A path that is not UTF-8 goes by its escaped form, which the server takes as it is.
function query(entry: string | Pick<Entry, "path" | "escaped_path">): string {
  if (typeof entry !== "string" && entry.escaped_path) return `path=${entry.escaped_path}`;
  return `path=${encodeURIComponent(typeof entry === "string" ? entry : entry.path)}`;
}

const route = (sessionId: string, ...rest: string[]) => sessionPath(sessionId, "files", ...rest);

export function stat(sessionId: string, path: string, signal?: AbortSignal): Promise<Entry> {
  return call<Entry>("GET", `${route(sessionId)}?${query(path)}`, { signal });
}

export function removeFile(sessionId: string, path: string): Promise<void> {
  return call<void>("DELETE", `${route(sessionId)}?${query(path)}`);
}

export function restoreFile(sessionId: string, path: string): Promise<void> {
  return call<void>("POST", `${route(sessionId, "restore")}?${query(path)}`);
}

export function makeFolder(sessionId: string, path: string): Promise<Entry> {
  return call<Entry>("POST", route(sessionId, "mkdir"), { body: { path } });
}

export function moveFile(sessionId: string, from: string, to: string, overwrite = false): Promise<Entry> {
  return call<Entry>("POST", route(sessionId, "move"), { body: { from, to, ...(overwrite ? { overwrite } : {}) } });
}

/** Address of a file's bytes; inline for what the page itself shows (images, sound). */
export function contentUrl(
  sessionId: string,
  entry: string | Pick<Entry, "path" | "escaped_path">,
  inline = false,
): string {
  return `${route(sessionId, "content")}?${query(entry)}${inline ? "&inline=true" : ""}`;
}

export function archiveUrl(sessionId: string, path: string): string {
  return withQuery(route(sessionId, "archive"), { path });
}

/** Lets the browser save what an address gives. */
export function download(url: string, name: string): void {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
}
