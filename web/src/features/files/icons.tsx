import {
  Braces,
  File,
  FileArchive,
  FileCode,
  FileText,
  Folder,
  FolderOpen,
  Image,
  type LucideIcon,
  Music,
  NotebookText,
  Sheet,
  Video,
} from "lucide-react";
import { type Kind, kindOf } from "./kinds";
import { extension } from "./paths";

const byKind: Record<Kind, LucideIcon> = {
  table: Sheet,
  image: Image,
  markdown: FileText,
  json: Braces,
  text: FileText,
  pdf: FileText,
  audio: Music,
  video: Video,
  notebook: NotebookText,
  other: File,
};

const code = new Set(
  "py pyi r jl js mjs ts tsx jsx css html htm sh sql c h cc cpp rs go java kt rb php lua".split(" "),
);
const archives = new Set("zip tar gz tgz bz2 xz zst 7z whl".split(" "));

export function FileIcon({ path, folder, open }: { path: string; folder?: boolean; open?: boolean }) {
  const ext = extension(path);
  const Icon = folder
    ? open
      ? FolderOpen
      : Folder
    : code.has(ext)
      ? FileCode
      : archives.has(ext)
        ? FileArchive
        : byKind[kindOf(path)];
  return <Icon aria-hidden className={`size-4 shrink-0 ${folder ? "text-gold" : "text-muted"}`} strokeWidth={1.75} />;
}
