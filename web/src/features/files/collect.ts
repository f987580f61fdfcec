import { safeRelative } from "./paths";

/** A file that a person gave, and where in the target folder it goes. */
export interface Given {
  file: File;
  relative: string;
}

export interface Collected {
  files: Given[];
  /** Folders that hold nothing, so that no file brings them along. */
  folders: string[];
}

function fromFile(file: File): Given {
  return { file, relative: safeRelative(file.webkitRelativePath || file.name) };
}

function readAll(reader: FileSystemDirectoryReader): Promise<FileSystemEntry[]> {
  return new Promise((resolve, reject) => {
    const all: FileSystemEntry[] = [];
    // A browser gives at most a hundred at a time, and none at the end.
    const next = () =>
      reader.readEntries((some) => {
        if (some.length === 0) resolve(all);
        else {
          all.push(...some);
          next();
        }
      }, reject);
    next();
  });
}

async function walk(entry: FileSystemEntry, prefix: string, into: Collected): Promise<void> {
  const path = prefix === "" ? entry.name : `${prefix}/${entry.name}`;
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    into.files.push({ file, relative: safeRelative(path) });
    return;
  }
  const entries = await readAll((entry as FileSystemDirectoryEntry).createReader());
  if (entries.length === 0) into.folders.push(safeRelative(path));
  for (const child of entries) await walk(child, path, into);
}

/**
 * All files of a drop, folders walked. Must be called in the event's own
 * handler: the browser empties the list when that returns.
 */
export function collect(items: DataTransferItemList | File[]): Promise<Collected> {
  const into: Collected = { files: [], folders: [] };
  if (Array.isArray(items)) {
    into.files = items.map(fromFile);
    return Promise.resolve(into);
  }
  const entries: FileSystemEntry[] = [];
  for (const item of Array.from(items)) {
    if (item.kind !== "file") continue;
    const entry = item.webkitGetAsEntry?.();
    if (entry?.isDirectory) {
      entries.push(entry);
      continue;
    }
    const file = item.getAsFile();
    if (file) into.files.push(fromFile(file));
  }
  return Promise.all(entries.map((entry) => walk(entry, "", into))).then(() => into);
}
