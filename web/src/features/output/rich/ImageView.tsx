import { Download, ImageOff, Maximize2 } from "lucide-react";
import { useMemo, useState } from "react";
import type { Json } from "@/api/types";
import { Dialog, IconButton } from "@/ui";
import { bytesOf, pixelsOf, sizeOf, textOf } from "../mime";
import { useStrings } from "../strings";
import { saveFile, useBlobURL } from "./useBlobURL";

export interface ImageViewProps {
  mime: string;
  value: Json | undefined;
  metadata: Record<string, Json> | undefined;
}

const extensions: Record<string, string> = { "image/jpeg": "jpg", "image/svg+xml": "svg" };

/** A raster picture. */
export function ImageView({ mime, value, metadata }: ImageViewProps) {
  const bytes = useMemo(() => bytesOf(value), [value]);
  const url = useBlobURL(bytes, mime);
  const pixels = useMemo(() => bytes && pixelsOf(bytes), [bytes]);
  const asked = sizeOf(metadata, mime);
  return (
    <Picture
      url={url}
      broken={!bytes}
      size={{ ...pixels, ...asked }}
      fixed={asked}
      save={() => bytes && saveFile(bytes, mime, nameOf(mime))}
    />
  );
}

/**
 * An SVG as a picture: there its scripts don't run and it loads nothing. As
 * data: URL, because what a person opens from it in a tab of its own then has
 * nobody's origin; a blob: URL would have this page's.
 */
export function SVGView({ mime, value, metadata }: ImageViewProps) {
  const text = textOf(value);
  const url = useMemo(() => `data:image/svg+xml;base64,${toBase64(withNamespace(text))}`, [text]);
  const size = useMemo(() => sizeOfSVG(text), [text]);
  const asked = sizeOf(metadata, mime);
  return (
    <Picture url={url} size={{ ...size, ...asked }} fixed={asked} save={() => saveFile(text, mime, nameOf(mime))} />
  );
}

function nameOf(mime: string): string {
  return `output.${extensions[mime] ?? mime.slice(mime.indexOf("/") + 1)}`;
}

function toBase64(text: string): string {
  let binary = "";
  for (const byte of new TextEncoder().encode(text)) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/** Inline SVG needs no namespace; as a file it is nothing without. */
function withNamespace(svg: string): string {
  return /<svg\b[^>]*\sxmlns\s*=/.test(svg) ? svg : svg.replace(/<svg\b/, '<svg xmlns="http://www.w3.org/2000/svg"');
}

function sizeOfSVG(svg: string): { width?: number; height?: number } {
  const tag = /<svg\b[^>]*>/.exec(svg)?.[0] ?? "";
  const read = (name: string) => {
    const found = new RegExp(`\\s${name}\\s*=\\s*["']\\s*([\\d.]+)(px|pt)?\\s*["']`).exec(tag);
    return found ? Number(found[1]) * (found[2] === "pt" ? 4 / 3 : 1) : Number.NaN;
  };
  const [width, height] = [read("width"), read("height")];
  return width > 0 && height > 0 && width < 1e4 && height < 1e4 ? { width, height } : {};
}

interface PictureProps {
  url: string | undefined;
  broken?: boolean;
  size: { width?: number; height?: number };
  fixed: { width?: number; height?: number };
  save: () => void;
}

function Picture({ url, broken, size, fixed, save }: PictureProps) {
  const s = useStrings();
  const [failed, setFailed] = useState(false);
  const [open, setOpen] = useState(false);
  if (broken || failed) {
    return (
      <p className="flex items-center gap-2 px-3 py-2 text-muted text-sm">
        <ImageOff className="size-4 shrink-0" aria-hidden />
        {s.imageBroken}
      </p>
    );
  }
  const box = {
    ...(size.width && size.height ? { aspectRatio: `${size.width} / ${size.height}` } : {}),
    ...(size.width ? { width: size.width } : {}),
    ...(fixed.height && !fixed.width ? { width: "auto", height: fixed.height } : {}),
  };
  return (
    <figure className="group/image relative w-fit max-w-full">
      <button
        type="button"
        className="block max-w-full cursor-zoom-in rounded-md"
        aria-label={`${s.image}: ${s.zoom}`}
        onClick={() => setOpen(true)}
      >
        {url ? (
          <img
            src={url}
            alt={s.image}
            className="block h-auto max-w-full rounded-md dark:bg-white"
            style={box}
            draggable={false}
            onError={() => setFailed(true)}
          />
        ) : (
          <span className="block max-w-full" style={box} />
        )}
      </button>
      <div className="absolute top-1.5 right-1.5 flex gap-1 rounded-md border bg-raised opacity-0 shadow-card transition-opacity focus-within:opacity-100 group-hover/image:opacity-100">
        <IconButton size="sm" label={s.zoom} onClick={() => setOpen(true)}>
          <Maximize2 />
        </IconButton>
        <IconButton size="sm" label={s.download} onClick={save}>
          <Download />
        </IconButton>
      </div>
      <Dialog open={open} onOpenChange={setOpen} title={s.image} size="full">
        <Zoomed url={url} size={size} onDownload={save} />
      </Dialog>
    </figure>
  );
}

function Zoomed({
  url,
  size,
  onDownload,
}: {
  url: string | undefined;
  size: { width?: number; height?: number };
  onDownload: () => void;
}) {
  const s = useStrings();
  const [real, setReal] = useState(false);
  return (
    <div className="flex h-full flex-col gap-2">
      <div className="flex items-center gap-2 text-muted text-xs">
        {size.width && size.height ? (
          <span className="tabular-nums">
            {Math.round(size.width)} × {Math.round(size.height)}
          </span>
        ) : null}
        <IconButton size="sm" label={s.download} onClick={onDownload}>
          <Download />
        </IconButton>
      </div>
      <button
        type="button"
        className="grid min-h-0 flex-1 place-items-center overflow-auto"
        aria-label={s.zoom}
        aria-pressed={real}
        onClick={() => setReal(!real)}
      >
        <img
          src={url}
          alt={s.image}
          className={real ? "max-w-none cursor-zoom-out dark:bg-white" : "h-full w-full cursor-zoom-in object-contain"}
        />
      </button>
    </div>
  );
}
