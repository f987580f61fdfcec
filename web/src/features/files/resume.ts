import { remember, remembered } from "@/lib/storage";

// What is needed to go on with an upload after a reload: a name for it that
// comes out the same when the same file is given again, and a note that it was
// not finished.

const sample = 64 * 1024;

function readBytes(blob: Blob): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(new Uint8Array(reader.result as ArrayBuffer));
    reader.onerror = () => reject(reader.error ?? new Error("the file can't be read"));
    reader.readAsArrayBuffer(blob);
  });
}

// FNV-1a, four lanes: it must tell files of one person apart and needs no
// secure context, which crypto.subtle does.
function digest(bytes: Uint8Array): string {
  const lanes = [0x811c9dc5, 0x01000193, 0x9e3779b9, 0x85ebca6b];
  for (let i = 0; i < bytes.length; i++) {
    const lane = i & 3;
    lanes[lane] = Math.imul((lanes[lane] ?? 0) ^ (bytes[i] ?? 0), 0x01000193) >>> 0;
    lanes[(lane + 1) & 3] = Math.imul((lanes[(lane + 1) & 3] ?? 0) ^ (lanes[lane] ?? 0), 0x85ebca6b) >>> 0;
  }
  return lanes.map((l) => l.toString(16).padStart(8, "0")).join("");
}

/** The Upload-Id of a file that goes to path: the same file, the same id. */
export async function uploadId(file: File, path: string): Promise<string> {
  const first = await readBytes(file.slice(0, sample));
  const last = await readBytes(file.slice(Math.max(sample, file.size - sample)));
  const facts = new TextEncoder().encode(`${file.name}\0${file.size}\0${file.lastModified}\0${path}\0`);
  const all = new Uint8Array(facts.length + first.length + last.length);
  all.set(facts);
  all.set(first, facts.length);
  all.set(last, facts.length + first.length);
  return digest(all);
}

/** Whether the file is still there and can be read: it may have been changed or moved since it was given. */
export async function readable(file: File): Promise<boolean> {
  try {
    await readBytes(file.slice(0, 1));
    return true;
  } catch {
    return false;
  }
}

/** An upload that a reload or a closed tab cut. */
export interface Unfinished {
  id: string;
  path: string;
  name: string;
  size: number;
  sent: number;
  at: number;
}

const maxAge = 24 * 3600 * 1000;
const key = (sessionId: string) => `uploads.${sessionId}`;

export function unfinishedUploads(sessionId: string): Unfinished[] {
  try {
    const all = JSON.parse(remembered(key(sessionId)) ?? "[]") as Unfinished[];
    return all.filter((u) => typeof u.path === "string" && Date.now() - u.at < maxAge);
  } catch {
    return [];
  }
}

function save(sessionId: string, all: Unfinished[]): void {
  remember(key(sessionId), JSON.stringify(all.slice(-50)));
}

export function noteUnfinished(sessionId: string, upload: Unfinished): void {
  save(sessionId, [...unfinishedUploads(sessionId).filter((u) => u.id !== upload.id), upload]);
}

export function forgetUnfinished(sessionId: string, id: string): void {
  const all = unfinishedUploads(sessionId);
  if (all.some((u) => u.id === id))
    save(
      sessionId,
      all.filter((u) => u.id !== id),
    );
}
