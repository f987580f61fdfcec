import type { Json } from "@/api/types";

export interface ListedFile {
  name: string;
  path: string;
  folder: boolean;
  /** How deep it lies below the folder that was listed, whose own depth is 0. */
  depth: number;
  size: string;
}

/** The tree that the tool list_files tells the model as text, or null if this is none. */
export function readFiles(value: Json | undefined): ListedFile[] | null {
  const result = value !== null && typeof value === "object" && !Array.isArray(value) ? value.files : value;
  if (typeof result !== "string" || !/^\/\S*\/?( \(empty\))?$/m.test(result.split("\n", 1)[0] ?? "")) return null;
  const files: ListedFile[] = [];
  const folders: string[] = [];
  for (const line of result.split("\n")) {
    const depth = ((/^ */.exec(line)?.[0].length ?? 0) / 2) | 0;
    const text = line.trim().replace(/ \(empty\)$/, "");
    if (text === "" || text.startsWith("… ")) continue;
    const [label = "", size = ""] = text.split(/ {2,}(?=[^ ]+(?: [A-Za-z]+)?$)/);
    const folder = label.endsWith("/");
    const name = folder ? label.slice(0, -1) : (label.split(" → ", 1)[0] ?? label);
    const path = depth === 0 ? name : `${folders[depth - 1] ?? ""}/${name}`;
    if (folder) folders[depth] = path;
    files.push({ name: depth === 0 ? path : name, path, folder, depth, size });
  }
  return files;
}
