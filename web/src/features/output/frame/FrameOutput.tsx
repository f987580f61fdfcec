import { ChevronDown, ChevronUp, Download, ExternalLink, RotateCw, ShieldAlert, X } from "lucide-react";
import { type ReactNode, useEffect, useLayoutEffect, useRef, useState } from "react";
import { cx } from "@/lib/cx";
import { Button, IconButton } from "@/ui";
import type { Content } from "../../../../frame/protocol";
import { saveFile } from "../rich/useBlobURL";
import { useStrings } from "../strings";
import { Frame } from "./host";
import { library } from "./libraries";
import { HeightGate } from "./message";
import { join, leave, type Member, sight } from "./pool";
import { useTheme } from "./theme";

/** Content whose library has yet to be fetched. */
export type Wanted =
  | Extract<Content, { kind: "html" | "svg" | "javascript" }>
  | { kind: "plotly"; figure: unknown }
  | { kind: "vega" | "vega-lite"; spec: unknown };

export interface FrameOutputProps {
  content: Wanted;
  /** Stands there until the frame has drawn. */
  preview?: ReactNode;
  /** Height before it is known. */
  height?: number;
}

const collapsedHeight = 640;
const expandedHeight = 20_000;
const maxHosts = 5;

type End = "left" | "focus" | "stopped" | "library";

async function withLibrary(wanted: Wanted): Promise<Content> {
  switch (wanted.kind) {
    case "plotly":
      return { ...wanted, library: await library("plotly") };
    case "vega":
    case "vega-lite":
      return { ...wanted, library: await library("vega") };
    default:
      return wanted;
  }
}

// What runs scripts gets a document of its own each time: names it declared
// before would be in its way.
function needsFresh(content: Wanted): boolean {
  return (
    content.kind === "javascript" || (content.kind === "html" && /<script|\son\w+\s*=|<iframe/i.test(content.html))
  );
}

/** An output with markup or scripts, in a frame that can do nothing to the page. */
export function FrameOutput({ content, preview, height: first = 60 }: FrameOutputProps) {
  const s = useStrings();
  const theme = useTheme();
  const box = useRef<HTMLDivElement>(null);
  const frame = useRef<Frame>(undefined);
  const [near, setNear] = useState(false);
  const [drawn, setDrawn] = useState(false);
  const [height, setHeight] = useState(first);
  const [expanded, setExpanded] = useState(false);
  const [hosts, setHosts] = useState<string[]>([]);
  const [evaluated, setEvaluated] = useState(false);
  const [link, setLink] = useState<string>();
  const [failure, setFailure] = useState<string>();
  const [ended, setEnded] = useState<End>();
  const [stuck, setStuck] = useState(false);
  const [attempt, setAttempt] = useState(0);
  const member = useRef<Member>(undefined);
  const told = useRef<Wanted>(undefined); // whose notes these are
  const chart = content.kind === "plotly" || content.kind === "vega" || content.kind === "vega-lite";

  // Only what is near the window has a frame.
  useEffect(() => {
    const el = box.current;
    if (!el) return;
    const observer = new IntersectionObserver(
      ([entry]) => {
        if (!entry) return;
        if (entry.isIntersecting) setNear(true);
        if (member.current) sight(member.current, entry.isIntersecting);
      },
      { scrollMargin: "600px", rootMargin: "600px" },
    );
    observer.observe(el);
    return () => observer.disconnect();
  }, []);

  const themeNow = useRef(theme);
  useEffect(() => {
    themeNow.current = theme;
    frame.current?.setTheme(theme);
  }, [theme]);

  const close = useRef(() => {
    frame.current?.close();
    frame.current = undefined;
    if (member.current) leave(member.current);
    member.current = undefined;
  });
  useEffect(() => () => close.current(), []);

  // biome-ignore lint/correctness/useExhaustiveDependencies: a new attempt is a reason to draw again
  useEffect(() => {
    if (!near || ended) return;
    let stale = false;
    const draw = async () => {
      let whole: Content;
      try {
        whole = await withLibrary(content);
      } catch {
        if (!stale) setEnded("library");
        return;
      }
      const el = box.current;
      if (stale || !el) return;
      setFailure(undefined);
      setStuck(false);
      const old = frame.current;
      if (old && !needsFresh(content)) {
        old.show(whole);
        return;
      }
      const gate = new HeightGate((h) => setHeight(Math.max(h, 24)));
      const end = (how: End) => () => {
        gate.stop();
        close.current();
        setDrawn(false);
        setEnded(how);
      };
      const next = new Frame(el, chart ? s.frame.chart : s.frame.title, themeNow.current, {
        rendered() {
          // The old one was seen until now, so that nothing flickers.
          old?.close();
          next.element.classList.remove("invisible", "absolute");
          setDrawn(true);
          setStuck(false);
        },
        height: (h) => gate.offer(h),
        blocked(directive, from) {
          if (from === "eval" || from === "wasm-eval") setEvaluated(true);
          else if (directive !== "style-src-attr") {
            setHosts((known) => (known.includes(from) || known.length >= maxHosts ? known : [...known, from]));
          }
        },
        link: setLink,
        failed(message) {
          old?.close();
          setFailure(message || "?");
        },
        left: end("left"),
        focusTaken: end("focus"),
        stuck: () => setStuck(true),
      });
      next.element.classList.add("invisible", "absolute", "inset-0");
      frame.current = next;
      if (told.current !== content) {
        told.current = content;
        setHosts([]);
        setEvaluated(false);
      }
      if (!member.current) {
        member.current = join(() => {
          close.current();
          setNear(false);
          setDrawn(false);
        });
      }
      next.show(whole);
    };
    void draw();
    return () => {
      stale = true;
    };
  }, [content, near, ended, attempt]);

  // A frame that gave way comes back when it is seen again.
  useLayoutEffect(() => {
    const el = box.current;
    if (near || !el) return;
    const observer = new IntersectionObserver(([entry]) => entry?.isIntersecting && setNear(true), {
      scrollMargin: "600px",
      rootMargin: "600px",
    });
    observer.observe(el);
    return () => observer.disconnect();
  }, [near]);

  const again = () => {
    setEnded(undefined);
    setFailure(undefined);
    setAttempt(attempt + 1);
  };
  const save = async () => {
    const png = await frame.current?.snapshot();
    if (png) saveFile(png, "image/png", "chart.png");
  };

  const trace = failure?.startsWith("unsupported-trace:") ? failure.slice("unsupported-trace:".length) : undefined;
  const limit = expanded ? expandedHeight : collapsedHeight;
  const gone = ended !== undefined || failure !== undefined;
  return (
    <div className="group/frame relative max-w-full">
      <div
        ref={box}
        className={cx("relative isolate overflow-hidden contain-strict", gone && "hidden")}
        style={{
          height: drawn || !preview ? Math.min(height, limit) : undefined,
          contain: drawn || !preview ? "strict" : "none",
        }}
      >
        {!drawn && preview}
      </div>
      {drawn && !gone && (chart || height > collapsedHeight) && (
        <div className="flex gap-1">
          {height > collapsedHeight && (
            <Button
              size="sm"
              variant="ghost"
              className="text-muted"
              aria-expanded={expanded}
              onClick={() => setExpanded(!expanded)}
            >
              {expanded ? <ChevronUp className="size-3.5" /> : <ChevronDown className="size-3.5" />}
              {expanded ? s.collapse : s.expand}
            </Button>
          )}
          {chart && (
            <Button size="sm" variant="ghost" className="text-muted" onClick={save}>
              <Download className="size-3.5" />
              {s.downloadPNG}
            </Button>
          )}
        </div>
      )}
      {failure !== undefined && preview}
      {failure !== undefined && (
        <Note>
          {trace ? s.frame.trace(trace) : s.frame.failed}{" "}
          {trace ? s.frame.traceHint : <span className="font-mono text-xs">{failure}</span>}
        </Note>
      )}
      {ended && (
        <Note
          action={
            <Button size="sm" onClick={again}>
              <RotateCw className="size-3.5" />
              {ended === "library" ? s.frame.retry : s.frame.again}
            </Button>
          }
        >
          {ended === "left"
            ? s.frame.left
            : ended === "focus"
              ? s.frame.focus
              : ended === "library"
                ? s.frame.library
                : s.frame.stuck}
        </Note>
      )}
      {stuck && !gone && (
        <Note
          action={
            <Button
              size="sm"
              onClick={() => {
                close.current();
                setStuck(false);
                setEnded("stopped");
              }}
            >
              {s.frame.stop}
            </Button>
          }
        >
          {s.frame.stuck}
        </Note>
      )}
      {(hosts.length > 0 || evaluated) && !ended && (
        <Note>
          {hosts.length > 0
            ? hosts.includes("form-action")
              ? s.frame.blockedForm
              : s.frame.blocked(hosts.join(", "))
            : s.frame.blockedEval}{" "}
          <span className="text-muted">{s.frame.blockedHint}</span>
        </Note>
      )}
      {link && (
        <Note
          icon={<ExternalLink className="mt-0.5 size-4 shrink-0 text-muted" aria-hidden />}
          action={
            <>
              <a
                className="inline-flex h-7 items-center rounded-md border border-line-strong bg-raised px-2.5 font-medium text-ink text-xs hover:bg-hover"
                href={link}
                target="_blank"
                rel="noopener noreferrer nofollow"
                onClick={() => setLink(undefined)}
              >
                {s.frame.open}
              </a>
              <IconButton size="sm" label={s.frame.dismiss} onClick={() => setLink(undefined)}>
                <X />
              </IconButton>
            </>
          }
        >
          {s.frame.opens} <span className="font-mono text-xs [overflow-wrap:anywhere]">{link}</span>
        </Note>
      )}
    </div>
  );
}

function Note({ children, action, icon }: { children: ReactNode; action?: ReactNode; icon?: ReactNode }) {
  return (
    <div role="note" className="my-1 flex items-start gap-2 rounded-md border bg-sunken px-3 py-2 text-sm">
      {icon ?? <ShieldAlert className="mt-0.5 size-4 shrink-0 text-warning" aria-hidden />}
      <p className="min-w-0 flex-1 leading-5">{children}</p>
      {action && <div className="-my-0.5 flex items-center gap-1">{action}</div>}
    </div>
  );
}
