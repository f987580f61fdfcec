// Paths in a sandbox: absolute, "/" between segments. A file's name on the
// person's machine is foreign text and becomes a path only through here.

const maxNameBytes = 255; // a longer name is refused by every file system in a sandbox
const encoder = new TextEncoder();

export function join(dir: string, ...rest: string[]): string {
  return [dir.replace(/\/+$/, ""), ...rest].join("/") || "/";
}

export function parent(path: string): string {
  const at = path.lastIndexOf("/");
  return at <= 0 ? "/" : path.slice(0, at);
}

export function base(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** The extension in lower case without the dot; "" if there is none. */
export function extension(path: string): string {
  const name = base(path);
  const at = name.lastIndexOf(".");
  return at <= 0 ? "" : name.slice(at + 1).toLowerCase();
}

/** Whether path is dir or lies in it. */
export function within(path: string, dir: string): boolean {
  return path === dir || path.startsWith(dir.endsWith("/") ? dir : `${dir}/`);
}

function shorten(name: string): string {
  if (encoder.encode(name).length <= maxNameBytes) return name;
  const at = name.lastIndexOf(".");
  const ext = at > 0 && name.length - at <= 20 ? name.slice(at) : "";
  let stem = [...name.slice(0, name.length - ext.length)];
  while (stem.length > 1 && encoder.encode(stem.join("") + ext).length > maxNameBytes) stem = stem.slice(0, -1);
  return stem.join("") + ext;
}

/** One segment that names a file and nothing else. */
export function safeName(name: string): string {
  const clean = [...name.normalize("NFC")]
    .map((c) => ((c.codePointAt(0) ?? 0) < 0x20 || c === "\u007f" || c === "/" || c === "\\" ? "_" : c))
    .filter((c) => !/[\u202a-\u202e\u2066-\u2069]/.test(c)) // they make "gpj.exe" read as "exe.jpg"
    .join("")
    .trim();
  if (clean === "" || clean === "." || clean === "..") return "file";
  return shorten(clean);
}

/** A path relative to a folder, from what a browser says of a dropped folder: never leaves it. */
export function safeRelative(path: string): string {
  const parts = path.split(/[/\\]/).filter((p) => p !== "" && p !== "." && p !== "..");
  return parts.map(safeName).join("/") || "file";
}

/** The first of name, name-2, name-3 … that is not taken. */
export function freeName(name: string, taken: (name: string) => boolean): string {
  const at = name.lastIndexOf(".");
  // "data.tar.gz" counts before ".tar.gz".
  const tar = /\.tar\.[a-z0-9]{1,4}$/i.exec(name);
  const cut = tar ? tar.index : at > 0 ? at : name.length;
  for (let n = 2; ; n++) {
    const next = `${name.slice(0, cut)}-${n}${name.slice(cut)}`;
    if (!taken(next)) return next;
  }
}

/** A Python literal of a path. */
export function pythonString(path: string): string {
  return JSON.stringify(path);
}

/** The id of a file's row in the page. */
export function rowId(path: string): string {
  return `file:${path}`;
}

/** Where files go that nobody put elsewhere. */
export const uploadDir = "/uploaded_files";
