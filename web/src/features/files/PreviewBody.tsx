import { Download, File as FileGlyph } from "lucide-react";
import { lazy, type ReactNode, Suspense, useEffect, useMemo, useState } from "react";
import { ApiError, send } from "@/api/client";
import type { Json } from "@/api/types";
import { formatBytes } from "@/lib/format";
import { Button, EmptyState, Skeleton } from "@/ui";
import { contentUrl, download, type Entry } from "./api";
import { hexDump, type Kind, kindOf, looksBinary } from "./kinds";
import { extension } from "./paths";
import { useStrings } from "./strings";

const DataTable = lazy(() => import("@/features/output/Table").then((m) => ({ default: m.DataTable })));
const Markdown = lazy(() => import("@/features/chat/Markdown").then((m) => ({ default: m.Markdown })));
const StaticCode = lazy(() =>
  import("@/features/notebook/highlight/StaticCode").then((m) => ({ default: m.StaticCode })),
);
const JSONTree = lazy(() => import("@/features/output/rich/JSONTree").then((m) => ({ default: m.JSONTree })));
const NotebookView = lazy(() => import("./NotebookView"));
const PictureView = lazy(() => import("./PictureView"));

/** Shown of a text; the whole can be downloaded. */
const textShown = 1 << 20;
/** Of what must be read whole to be shown. */
const wholeShown = 24 << 20;
/** Of a file that is no text. */
const hexShown = 1024;

interface Bytes {
  status: "loading" | "ready" | "failed";
  bytes: Uint8Array<ArrayBuffer>;
  problem?: string;
}

const nothing = new Uint8Array(0);

/** The first bytes of a file. */
function useBytes(sessionId: string, entry: Entry, most: number): Bytes {
  const [state, setState] = useState<Bytes>({ status: "loading", bytes: nothing });
  const { path, escaped_path, size_bytes } = entry;
  useEffect(() => {
    if (size_bytes === 0) {
      setState({ status: "ready", bytes: nothing });
      return;
    }
    const abort = new AbortController();
    const headers = size_bytes > most ? { Range: `bytes=0-${most - 1}` } : undefined;
    send("GET", contentUrl(sessionId, escaped_path ? { path, escaped_path } : path), {
      signal: abort.signal,
      ...(headers ? { headers } : {}),
    })
      .then((response) => response.arrayBuffer())
      .then((buffer) => setState({ status: "ready", bytes: new Uint8Array(buffer).subarray(0, most) }))
      .catch((err: unknown) => {
        if (abort.signal.aborted) return;
        const problem = err instanceof ApiError ? [err.detail, err.hint].filter(Boolean).join(" ") : String(err);
        setState({ status: "failed", bytes: nothing, problem });
      });
    return () => abort.abort();
  }, [sessionId, path, escaped_path, size_bytes, most]);
  return state;
}

interface BodyProps {
  sessionId: string;
  entry: Entry;
}

/** Ways a kind of file can be looked at besides its own. */
const alternatives: Partial<Record<Kind, Kind>> = { table: "text", markdown: "text", json: "text", notebook: "json" };
// Of these a text view would show bytes.
const binaryTables = new Set(["parquet", "pq", "xlsx", "xlsm", "xls", "feather", "arrow"]);

export function PreviewBody({ sessionId, entry }: BodyProps) {
  const s = useStrings();
  const kind = kindOf(entry.path);
  const svg = extension(entry.path) === "svg";
  const other = svg ? "text" : binaryTables.has(extension(entry.path)) ? undefined : alternatives[kind];
  const [as, setAs] = useState<Kind>(kind);
  const names: Partial<Record<Kind, string>> = { text: s.asText, table: s.asTable, json: s.asTree };
  return (
    <div className="flex h-full min-h-0 flex-col">
      {other && (
        <fieldset className="flex shrink-0 gap-1 border-b px-2 py-1" aria-label={s.view}>
          {[kind, other].map((k) => (
            <button
              key={k}
              type="button"
              aria-pressed={as === k}
              onClick={() => setAs(k)}
              className="rounded-md px-2 py-0.5 text-muted text-xs hover:bg-hover aria-pressed:bg-hover aria-pressed:font-medium aria-pressed:text-ink"
            >
              {names[k] ?? s.asRendered}
            </button>
          ))}
        </fieldset>
      )}
      <div className="min-h-0 flex-1 overflow-auto">
        <Suspense fallback={<Skeleton className="m-4 h-40" />}>
          <View as={as} sessionId={sessionId} entry={entry} />
        </Suspense>
      </div>
    </div>
  );
}

function View({ as, sessionId, entry }: BodyProps & { as: Kind }) {
  const s = useStrings();
  if (entry.size_bytes === 0) return <Word>{s.emptyFile}</Word>;
  switch (as) {
    case "table":
      return <DataTable fill source={{ kind: "file", sessionId, path: entry.path }} />;
    case "image":
      return <PictureView sessionId={sessionId} entry={entry} />;
    case "audio":
    case "video":
      return <Player sessionId={sessionId} entry={entry} video={as === "video"} />;
    case "pdf":
      return (
        <NoView sessionId={sessionId} entry={entry}>
          {s.pdf}
        </NoView>
      );
    case "markdown":
    case "json":
    case "notebook":
      return entry.size_bytes > wholeShown ? (
        <NoView sessionId={sessionId} entry={entry}>
          {s.tooLarge(formatBytes(entry.size_bytes))}
        </NoView>
      ) : (
        <Whole as={as} sessionId={sessionId} entry={entry} />
      );
    case "text":
      return <Text sessionId={sessionId} entry={entry} />;
    default:
      return <Unknown sessionId={sessionId} entry={entry} />;
  }
}

function Word({ children }: { children: ReactNode }) {
  return <p className="p-6 text-center text-muted text-sm">{children}</p>;
}

function NoView({ sessionId, entry, children }: BodyProps & { children: ReactNode }) {
  const s = useStrings();
  return (
    <EmptyState
      icon={<FileGlyph />}
      title={`${entry.name}, ${formatBytes(entry.size_bytes)}`}
      action={
        <Button variant="primary" onClick={() => download(contentUrl(sessionId, entry), entry.name)}>
          <Download aria-hidden className="size-4" />
          {s.download}
        </Button>
      }
    >
      {children}
    </EmptyState>
  );
}

function useLoaded(
  sessionId: string,
  entry: Entry,
  most: number,
  show: (bytes: Uint8Array<ArrayBuffer>) => ReactNode,
): ReactNode {
  const s = useStrings();
  const { status, bytes, problem } = useBytes(sessionId, entry, most);
  // biome-ignore lint/correctness/useExhaustiveDependencies: what is shown depends on the bytes alone
  return useMemo(() => {
    if (status === "loading") return <Skeleton className="m-4 h-40" />;
    if (status === "failed") return <EmptyState title={s.failedToRead}>{problem}</EmptyState>;
    return show(bytes);
  }, [status, bytes, problem, s]);
}

function Whole({ as, sessionId, entry }: BodyProps & { as: "markdown" | "json" | "notebook" }) {
  return useLoaded(sessionId, entry, wholeShown, (bytes) => {
    const text = new TextDecoder().decode(bytes);
    if (as === "markdown") {
      return (
        <div className="mx-auto max-w-3xl p-6">
          <Markdown text={text} />
        </div>
      );
    }
    try {
      const value = JSON.parse(text) as Json;
      return as === "json" ? (
        <div className="p-3 font-mono text-sm">
          <JSONTree value={value} />
        </div>
      ) : (
        <NotebookView sessionId={sessionId} entry={entry} notebook={value} />
      );
    } catch {
      return <Text sessionId={sessionId} entry={entry} />; // not what its name says
    }
  });
}

function Text({ sessionId, entry }: BodyProps) {
  const s = useStrings();
  return useLoaded(sessionId, entry, textShown, (bytes) => {
    if (looksBinary(bytes)) return <Hex bytes={bytes} />;
    const text = new TextDecoder().decode(bytes, { stream: true });
    const lines = text.endsWith("\n") ? text.slice(0, -1) : text;
    return (
      <>
        {entry.size_bytes > textShown && (
          <p className="border-b bg-warning-soft px-3 py-1.5 text-warning text-xs">
            {s.firstPart(formatBytes(textShown), formatBytes(entry.size_bytes))}
          </p>
        )}
        {lines.length < 200_000 ? (
          <StaticCode code={lines} language={extension(entry.path) || "text"} lineNumbers className="p-3" />
        ) : (
          <LongText text={lines} />
        )}
      </>
    );
  });
}

/** Text without colours: one node for all lines, so that a megabyte costs little. */
function LongText({ text }: { text: string }) {
  const numbers = useMemo(() => {
    let count = 1;
    for (let i = text.indexOf("\n"); i >= 0; i = text.indexOf("\n", i + 1)) count++;
    return Array.from({ length: count }, (_, i) => i + 1).join("\n");
  }, [text]);
  return (
    <div className="flex min-w-max font-mono text-[0.8125rem] leading-5">
      <pre aria-hidden className="sticky left-0 select-none border-r bg-sunken px-2 py-3 text-right text-muted">
        {numbers}
      </pre>
      <pre className="px-3 py-3">{text}</pre>
    </div>
  );
}

function Hex({ bytes }: { bytes: Uint8Array }) {
  const s = useStrings();
  return (
    <div className="p-3">
      <p className="pb-2 text-muted text-xs">{s.binary}</p>
      <pre className="overflow-auto font-mono text-xs leading-5">{hexDump(bytes.subarray(0, hexShown))}</pre>
    </div>
  );
}

/** A file of no known kind: text if it is one, otherwise its bytes. */
function Unknown({ sessionId, entry }: BodyProps) {
  return useLoaded(sessionId, entry, hexShown, (bytes) =>
    bytes.length > 0 && !looksBinary(bytes) ? <Text sessionId={sessionId} entry={entry} /> : <Hex bytes={bytes} />,
  );
}

function Player({ sessionId, entry, video }: BodyProps & { video: boolean }) {
  const s = useStrings();
  const [failed, setFailed] = useState(false);
  if (failed) {
    return (
      <NoView sessionId={sessionId} entry={entry}>
        {s.notPlayable}
      </NoView>
    );
  }
  const source = contentUrl(sessionId, entry, true);
  return (
    <div className="flex h-full items-center justify-center p-4">
      {video ? (
        // biome-ignore lint/a11y/useMediaCaption: a file of the person has none
        <video src={source} controls onError={() => setFailed(true)} className="max-h-full max-w-full" />
      ) : (
        // biome-ignore lint/a11y/useMediaCaption: a file of the person has none
        <audio src={source} controls onError={() => setFailed(true)} className="w-full max-w-lg" />
      )}
    </div>
  );
}
