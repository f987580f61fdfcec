import { Maximize, ZoomIn, ZoomOut } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { send } from "@/api/client";
import { cx } from "@/lib/cx";
import { EmptyState, IconButton } from "@/ui";
import { contentUrl, type Entry } from "./api";
import { extension } from "./paths";
import { useStrings } from "./strings";

const steps = [0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 8, 16];

function dataUrl(svg: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(new Blob([svg], { type: "image/svg+xml" }));
  });
}

/** A picture, fitted to its place or as large as one wants it. */
export default function PictureView({ sessionId, entry }: { sessionId: string; entry: Entry }) {
  const s = useStrings();
  const [source, setSource] = useState("");
  const [failed, setFailed] = useState(false);
  const [size, setSize] = useState<{ w: number; h: number } | null>(null);
  const [zoom, setZoom] = useState<number | null>(null); // null: fitted
  const image = useRef<HTMLImageElement>(null);
  const svg = extension(entry.path) === "svg";

  // The server gives SVG as text only, as it can carry scripts. In an img they
  // don't run, and a data: URL has nobody's origin when a person opens it alone.
  useEffect(() => {
    if (!svg) {
      setSource(contentUrl(sessionId, entry, true));
      return;
    }
    const abort = new AbortController();
    send("GET", contentUrl(sessionId, entry), { signal: abort.signal })
      .then((response) => response.blob())
      .then(dataUrl)
      .then(setSource)
      .catch(() => !abort.signal.aborted && setFailed(true));
    return () => abort.abort();
  }, [sessionId, entry, svg]);

  const now = () => zoom ?? (size && image.current ? image.current.clientWidth / size.w : 1);
  const to = (direction: 1 | -1) => {
    const from = now();
    setZoom((direction > 0 ? steps.find((z) => z > from * 1.01) : steps.findLast((z) => z < from * 0.99)) ?? from);
  };
  if (failed) return <EmptyState title={s.failedToRead}>{s.notAnImage}</EmptyState>;
  return (
    <div className="flex h-full min-h-0 flex-col">
      <div className="flex shrink-0 items-center gap-1 border-b px-2 py-1">
        <IconButton size="sm" label={s.zoomOut} onClick={() => to(-1)}>
          <ZoomOut />
        </IconButton>
        <IconButton size="sm" label={s.zoomIn} onClick={() => to(1)}>
          <ZoomIn />
        </IconButton>
        <IconButton size="sm" label={s.fit} aria-pressed={zoom === null} onClick={() => setZoom(null)}>
          <Maximize />
        </IconButton>
        <span className="px-1 text-muted text-xs tabular-nums">
          {zoom !== null && `${Math.round(zoom * 100)} % · `}
          {size && s.pixels(size.w, size.h)}
        </span>
      </div>
      <div
        data-arrows={zoom === null ? undefined : ""}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
        tabIndex={0}
        className={cx("min-h-0 flex-1 overflow-auto", zoom === null && "flex items-center justify-center p-4")}
      >
        {source && (
          <img
            ref={image}
            src={source}
            alt={entry.name}
            onError={() => setFailed(true)}
            onLoad={(e) => setSize({ w: e.currentTarget.naturalWidth, h: e.currentTarget.naturalHeight })}
            className={cx("dark:bg-white", zoom === null ? "max-h-full max-w-full object-contain" : "max-w-none")}
            style={
              zoom !== null && size
                ? { width: size.w * zoom, height: size.h * zoom, imageRendering: zoom > 2 ? "pixelated" : "auto" }
                : undefined
            }
          />
        )}
      </div>
    </div>
  );
}
