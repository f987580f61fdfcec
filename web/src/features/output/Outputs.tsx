import { memo, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { ApiError, send, sessionPath, withQuery } from "@/api/client";
import type { Item, Json, Output, Table } from "@/api/types";
import { Markdown } from "@/features/chat/Markdown";
import { cx } from "@/lib/cx";
import { formatBytes } from "@/lib/format";
import { Button, Skeleton, toast } from "@/ui";
import { ErrorView } from "./error/ErrorView";
import { FrameOutput, type Wanted } from "./frame/FrameOutput";
import { type Kind, type Representation, representations, textOf } from "./mime";
import { ImageView, SVGView } from "./rich/ImageView";
import { JSONTree } from "./rich/JSONTree";
import { AudioView, PDFView, VideoView } from "./rich/MediaView";
import { useStrings } from "./strings";
import { DataTable } from "./Table";
import { TextView } from "./text/TextView";
import type { TextSource } from "./text/useTerminal";

export interface OutputsProps {
  item: Item;
  sessionId: string;
}

/** Everything a cell shows. */
export const Outputs = memo(function Outputs({ item, sessionId }: OutputsProps) {
  const s = useStrings();
  const outputs = item.outputs ?? [];
  const box = useRef<HTMLDivElement>(null);
  const busy = item.status === "running" || item.status === "queued";
  useKeptHeight(box, outputs.length, busy);
  const all = sessionPath(sessionId, "items", item.id, "output");
  if (outputs.length === 0 && !busy) return null;
  return (
    // biome-ignore lint/a11y/useSemanticElements: a section with a name would be a landmark, and a page has many outputs
    <div ref={box} role="group" aria-label={s.outputs} className="flex min-w-0 flex-col gap-2">
      {outputs.map((output, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: an output is its place; updates come to the same one
        <OutputView key={index} output={output} index={index} itemId={item.id} sessionId={sessionId} download={all} />
      ))}
      {(item.dropped_bytes ?? 0) > 0 && (
        <p className="flex flex-wrap items-center gap-x-2 rounded-md border bg-sunken px-3 py-2 text-muted text-sm">
          <span>{s.leftOut(formatBytes(item.dropped_bytes ?? 0))}</span>
          {item.output_file && <span className="[overflow-wrap:anywhere]">{s.wholeInFile(item.output_file)}</span>}
          <a className="text-accent underline underline-offset-2" href={all} download>
            {s.downloadAll}
          </a>
        </p>
      )}
    </div>
  );
});

// A run that begins anew clears the outputs, and what follows would jump up and
// down again. The place stays as high as it was until something comes, or the run ends.
function useKeptHeight(box: React.RefObject<HTMLElement | null>, count: number, busy: boolean): void {
  const height = useRef(0);
  useLayoutEffect(() => {
    const el = box.current;
    if (!el) return;
    if (count === 0) {
      el.style.minHeight = busy && height.current > 0 ? `${height.current}px` : "";
      return;
    }
    // What comes first is often smaller than what will be; the place shrinks a moment later.
    const timer = setTimeout(() => {
      el.style.minHeight = "";
    }, 150);
    return () => clearTimeout(timer);
  }, [box, count, busy]);
  useEffect(() => {
    const el = box.current;
    if (!el || count === 0) return;
    const observer = new ResizeObserver(() => {
      height.current = Math.min(el.offsetHeight, 2000);
    });
    observer.observe(el);
    return () => observer.disconnect();
  }, [box, count]);
}

interface OutputProps {
  output: Output;
  index: number;
  itemId: string;
  sessionId: string;
  download: string;
}

const OutputView = memo(function OutputView(props: OutputProps) {
  const { output } = props;
  switch (output.output_type) {
    case "stream":
      return <StreamView {...props} />;
    case "error":
      return <ErrorView output={output} />;
    default:
      return <DisplayView {...props} />;
  }
});

/** A value of an output that did not come along. */
function useValue(props: OutputProps, mime: string) {
  const { sessionId, itemId, index } = props;
  const [state, setState] = useState<{ text?: string; loading?: boolean; error?: ApiError }>({});
  const path = withQuery(sessionPath(sessionId, "items", itemId, "outputs", String(index)), { mime });
  const load = async () => {
    setState({ loading: true });
    try {
      const response = await send("GET", path);
      const binary = /^(image\/(?!svg)|audio\/|video\/|application\/pdf)/.test(mime);
      setState({ text: binary ? await toBase64(await response.blob()) : await response.text() });
    } catch (err) {
      setState({ error: err instanceof ApiError ? err : new ApiError(0, "output", String(err)) });
    }
  };
  return { ...state, load };
}

function toBase64(blob: Blob): Promise<string> {
  return new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(String(reader.result).replace(/^[^,]*,/, ""));
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(blob);
  });
}

function StreamView(props: OutputProps) {
  const s = useStrings();
  const { output, download } = props;
  const ref = output.refs?.text;
  const value = useValue(props, "text");
  const chunks = (output as { chunks?: TextSource }).chunks;
  const source: TextSource = value.text ?? chunks ?? textOf((output.text ?? "") as Json);
  const load = async () => {
    await value.load();
  };
  useEffect(() => {
    if (value.error) toast.failure(value.error);
  }, [value.error]);
  return (
    <div className="min-w-0">
      <TextView source={source} warn={output.name === "stderr"} download={download} />
      {ref && value.text === undefined && (
        <p className="flex items-center gap-2 px-3 py-1 text-muted text-xs">
          {s.shortened(formatBytes(ref.bytes))}
          <Button size="sm" variant="ghost" className="text-accent" busy={value.loading ?? false} onClick={load}>
            {s.loadWhole}
          </Button>
        </p>
      )}
    </div>
  );
}

function DisplayView(props: OutputProps) {
  const s = useStrings();
  const { output } = props;
  const all = useMemo(() => representations(output), [output]);
  const [chosen, setChosen] = useState<string>();
  const current = all.find((r) => r.mime === chosen) ?? all[0];
  if (!current) return null;
  // Text stands behind nearly everything; it is worth a choice, not a row of its own.
  return (
    <div className="relative min-w-0">
      {all.length > 1 && (
        <fieldset className="mb-1 flex w-fit max-w-full gap-0.5 overflow-x-auto rounded-md bg-sunken p-0.5">
          <legend className="sr-only">{s.show}</legend>
          {all.map((r) => (
            <button
              key={r.mime}
              type="button"
              aria-pressed={r === current}
              title={r.mime}
              className="shrink-0 rounded px-2 text-muted text-xs leading-5 hover:text-ink aria-pressed:bg-raised aria-pressed:text-ink aria-pressed:shadow-card"
              onClick={() => setChosen(r.mime)}
            >
              {labelOf(r, all, s.representation)}
            </button>
          ))}
        </fieldset>
      )}
      <Shown {...props} key={current.mime} representation={current} preview={current === all[0] ? all : []} />
    </div>
  );
}

function labelOf(r: Representation, all: Representation[], names: Record<Kind, string>): string {
  const twins = all.filter((other) => names[other.kind] === names[r.kind]);
  return twins.length > 1 || r.kind === "unknown" ? r.mime.replace(/^(application|image)\//, "") : names[r.kind];
}

interface ShownProps extends OutputProps {
  representation: Representation;
  preview: Representation[];
}

/** One representation, fetched first if it did not come along. */
function Shown(props: ShownProps) {
  const { representation } = props;
  const { mime, value } = representation;
  const fetched = useValue(props, mime);
  const missing = value === undefined;
  const { load } = fetched;
  // biome-ignore lint/correctness/useExhaustiveDependencies: once for each output
  useEffect(() => {
    if (missing) void load();
  }, [missing, props.output]);
  const json = representation.kind === "json" || /\+json$/.test(mime);
  const text = fetched.text;
  const whole = useMemo(
    () => (missing && text !== undefined ? (json ? parse(text) : text) : value),
    [missing, text, json, value],
  );
  if (fetched.error)
    return <p className="px-3 py-1 text-danger text-sm">{`${fetched.error.detail} ${fetched.error.hint}`}</p>;
  if (whole === undefined) return <Skeleton className="h-24 w-full max-w-120" />;
  return <ByKind {...props} value={whole} />;
}

function parse(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return text;
  }
}

function asJSON(value: Json): Json {
  return typeof value === "string" ? parse(value) : value;
}

function ByKind({ representation, preview, output, sessionId, download, value }: ShownProps & { value: Json }) {
  const s = useStrings();
  const { mime, kind } = representation;
  const image = preview.find((r) => r.kind === "image" && r.value !== undefined);
  const text = preview.find((r) => r.kind === "text");
  const still = image && kind !== "image" && (
    <ImageView mime={image.mime} value={image.value} metadata={output.metadata} />
  );
  switch (kind) {
    case "table":
      return <DataTable source={{ kind: "frame", sessionId, value: asJSON(value) as unknown as Partial<Table> }} />;
    case "plotly":
    case "vega":
    case "html":
    case "javascript":
      return <Framed kind={kind} mime={mime} value={value} still={still} />;
    case "svg":
      return <SVGOutput mime={mime} value={value} output={output} />;
    case "image":
      return <ImageView mime={mime} value={value} metadata={output.metadata} />;
    case "video":
      return <VideoView mime={mime} value={value} />;
    case "audio":
      return <AudioView mime={mime} value={value} />;
    case "pdf":
      return <PDFView mime={mime} value={value} />;
    case "latex":
      return (
        <div className="overflow-x-auto px-1 py-1">
          <Markdown text={latexAsMarkdown(textOf(value))} />
        </div>
      );
    case "markdown":
      return <Markdown text={textOf(value)} />;
    case "json":
      return <JSONTree value={value} />;
    case "widget":
      return (
        <div>
          <p className="rounded-md border border-dashed px-3 py-2 text-muted text-sm">{s.widget}</p>
          {text !== undefined && <TextView source={textOf(text.value)} />}
        </div>
      );
    case "text":
      return <TextView source={textOf(value)} download={download} />;
    default:
      return (
        <div className="rounded-md border border-dashed px-3 py-2 text-muted text-sm">
          <p>{s.unknownMime(mime)}</p>
          <details className="mt-1">
            <summary className="cursor-default text-xs">{s.representation.text}</summary>
            <TextView source={textOf(value)} download={download} />
          </details>
        </div>
      );
  }
}

function latexAsMarkdown(text: string): string {
  const bare = text.trim();
  const dollars = /^(\${1,2})([\s\S]*)\1$/.exec(bare);
  const brackets = /^\\[[(]([\s\S]*)\\[\])]$/.exec(bare);
  if (dollars && !(dollars[2] ?? "").includes("$"))
    return `$$\n${(dollars[2] ?? "").replace(/^\\displaystyle\s*/, "").trim()}\n$$`;
  if (brackets) return `$$\n${(brackets[1] ?? "").trim()}\n$$`;
  return bare.includes("$") ? bare : `$$\n${bare}\n$$`;
}

interface FramedProps {
  kind: "plotly" | "vega" | "html" | "javascript";
  mime: string;
  value: Json;
  still: React.ReactNode;
}

function Framed({ kind, mime, value, still }: FramedProps) {
  const s = useStrings();
  const content = useMemo((): Wanted => {
    switch (kind) {
      case "plotly":
        return { kind, figure: asJSON(value) };
      case "vega":
        return { kind: mime.includes("vegalite") ? "vega-lite" : "vega", spec: asJSON(value) };
      case "html":
        return { kind, html: textOf(value) };
      default:
        return { kind, code: textOf(value) };
    }
  }, [kind, mime, value]);
  return (
    <>
      {kind === "javascript" && <p className="px-1 text-muted text-xs">{s.javascript}</p>}
      <FrameOutput content={content} preview={still} height={kind === "plotly" ? 434 : kind === "vega" ? 320 : 40} />
    </>
  );
}

/** Pictures as pictures; what a person could do something in, in a frame, on their word. */
function SVGOutput({ mime, value, output }: { mime: string; value: Json; output: Output }) {
  const s = useStrings();
  const text = textOf(value);
  const active = useMemo(() => /<script|\son\w+\s*=|<foreignObject|<a[\s>]|<set\b|<animate/i.test(text), [text]);
  const [interactive, setInteractive] = useState(false);
  const content = useMemo((): Wanted => ({ kind: "svg", svg: text }), [text]);
  return (
    <div>
      {interactive ? (
        <FrameOutput content={content} height={200} />
      ) : (
        <SVGView mime={mime} value={value} metadata={output.metadata} />
      )}
      {active && (
        <p className={cx("flex items-center gap-1 text-muted text-xs")}>
          {!interactive && s.svgNote}
          <Button size="sm" variant="ghost" className="text-accent" onClick={() => setInteractive(!interactive)}>
            {interactive ? s.still : s.interactive}
          </Button>
        </p>
      )}
    </div>
  );
}
