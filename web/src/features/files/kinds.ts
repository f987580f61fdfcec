import { extension } from "./paths";

/** How a file is shown. */
export type Kind = "table" | "image" | "markdown" | "json" | "text" | "pdf" | "audio" | "video" | "notebook" | "other";

const byExtension: Record<Exclude<Kind, "other">, string> = {
  table: "csv tsv tab parquet pq xlsx xlsm xls jsonl ndjson feather arrow",
  image: "png jpg jpeg gif webp avif bmp ico svg",
  markdown: "md markdown",
  json: "json geojson webmanifest",
  text: "txt text log py pyi r jl js mjs cjs ts tsx jsx css scss html htm xml yaml yml toml ini cfg conf env sh bash zsh sql c h cc cpp hpp rs go java kt rb php pl lua tex bib rst csvw diff patch properties gitignore dockerfile makefile vega vl out err",
  pdf: "pdf",
  audio: "wav mp3 ogg oga flac m4a aac opus",
  video: "mp4 webm ogv mov m4v",
  notebook: "ipynb",
};

const kinds = new Map<string, Kind>();
for (const [kind, list] of Object.entries(byExtension)) {
  for (const ext of list.split(" ")) kinds.set(ext, kind as Kind);
}

/** What a name promises. Bytes that break the promise are shown as what they are, see looksBinary. */
export function kindOf(path: string): Kind {
  const ext = extension(path);
  if (ext !== "") return kinds.get(ext) ?? "other";
  const name = path.slice(path.lastIndexOf("/") + 1).toLowerCase();
  return /^(readme|license|makefile|dockerfile|requirements|\.[a-z]+rc|\.env|\.gitignore)$/.test(name)
    ? "text"
    : "other";
}

/** Whether the first bytes of a file are no text. */
export function looksBinary(bytes: Uint8Array): boolean {
  if (bytes.includes(0)) return true;
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
    return false;
  } catch {
    return true;
  }
}

const escapes = ".";

/** Bytes as people read them: offset, hexadecimal, letters. */
export function hexDump(bytes: Uint8Array, width = 16): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += width) {
    const row = [...bytes.subarray(at, at + width)];
    const hex = row.map((b) => b.toString(16).padStart(2, "0"));
    const left = hex.slice(0, width / 2).join(" ");
    const right = hex.slice(width / 2).join(" ");
    const letters = row.map((b) => (b >= 0x20 && b < 0x7f ? String.fromCharCode(b) : escapes)).join("");
    lines.push(
      `${at.toString(16).padStart(8, "0")}  ${left.padEnd(width * 1.5 - 1)}  ${right.padEnd(width * 1.5 - 1)}  ${letters}`,
    );
  }
  return lines.join("\n");
}
