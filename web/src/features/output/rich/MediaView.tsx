import { Download, FileText } from "lucide-react";
import { useMemo } from "react";
import type { Json } from "@/api/types";
import { formatBytes } from "@/lib/format";
import { Button } from "@/ui";
import { bytesOf } from "../mime";
import { useStrings } from "../strings";
import { saveFile, useBlobURL } from "./useBlobURL";

interface MediaProps {
  mime: string;
  value: Json | undefined;
}

export function AudioView({ mime, value }: MediaProps) {
  const bytes = useMemo(() => bytesOf(value), [value]);
  const url = useBlobURL(bytes, mime);
  // biome-ignore lint/a11y/useMediaCaption: there are none for what a cell makes
  return <audio className="h-12 w-full max-w-120" controls preload="metadata" src={url} />;
}

export function VideoView({ mime, value }: MediaProps) {
  const bytes = useMemo(() => bytesOf(value), [value]);
  const url = useBlobURL(bytes, mime);
  // biome-ignore lint/a11y/useMediaCaption: there are none for what a cell makes
  return <video className="max-h-120 max-w-full rounded-md" controls preload="metadata" src={url} />;
}

/** A PDF is a file to save: shown in the page it would need a plugin, which the policy forbids. */
export function PDFView({ mime, value }: MediaProps) {
  const s = useStrings();
  const bytes = useMemo(() => bytesOf(value), [value]);
  return (
    <div className="flex w-fit items-center gap-3 rounded-md border bg-raised px-3 py-2 text-sm">
      <FileText className="size-5 text-muted" aria-hidden />
      <span>{s.pdf(formatBytes(bytes?.length ?? 0))}</span>
      <Button size="sm" disabled={!bytes} onClick={() => bytes && saveFile(bytes, mime, "output.pdf")}>
        <Download className="size-3.5" />
        {s.download}
      </Button>
    </div>
  );
}
