import { ChevronDown, ChevronUp, Copy, Download, Search, X } from "lucide-react";
import { useDeferredValue, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { cx } from "@/lib/cx";
import { formatNumber } from "@/lib/format";
import { IconButton, toast } from "@/ui";
import { useStrings } from "../strings";
import { LineView } from "./LineView";
import { lineText, type Terminal } from "./terminal";
import { type TextSource, useTerminal } from "./useTerminal";

// From here on a text gets a place of fixed height that only draws what is seen of it.
const virtualFrom = 400;
const rowHeight = 20;
const viewHeight = 400;
const seen = viewHeight / rowHeight; // rows
const around = 12; // rows drawn above and below those

export interface TextViewProps {
  source: TextSource;
  /** stderr has a mark at its side. */
  warn?: boolean;
  /** Where all of it can be had. */
  download?: string | undefined;
}

function linesOf(terminal: Terminal): number {
  // A newline at the end begins no line that people would count.
  const n = terminal.lines.length;
  return n > 0 && terminal.lines[n - 1] === "" ? n - 1 : n;
}

/** Text as a terminal would show it. */
export function TextView({ source, warn, download }: TextViewProps) {
  const terminal = useTerminal(source);
  const count = linesOf(terminal);
  const className = cx("font-mono text-[0.8125rem] text-ink", warn && "border-warning border-l-2 bg-warning-soft/40");
  if (count === 0) return null;
  if (count > virtualFrom) {
    return <LongText terminal={terminal} count={count} className={className} download={download} />;
  }
  return (
    <pre className={cx(className, "whitespace-pre-wrap px-3 py-1.5 leading-5 [overflow-wrap:anywhere]")}>
      {terminal.lines.slice(0, count).map((line, i) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a line is its place
        <div key={i} className="min-h-5">
          <LineView line={line} />
        </div>
      ))}
    </pre>
  );
}

interface LongTextProps {
  terminal: Terminal;
  count: number;
  className: string;
  download: string | undefined;
}

function LongText({ terminal, count, className, download }: LongTextProps) {
  const s = useStrings();
  const scroller = useRef<HTMLDivElement>(null);
  const following = useRef(true);
  const last = useRef({ top: 0, height: 0 });
  const touched = useRef(Number.NEGATIVE_INFINITY);
  const touch = () => {
    touched.current = performance.now();
  };
  const [first, setFirst] = useState(0); // the first row that is seen
  const [searching, setSearching] = useState(false);
  const [query, setQuery] = useState("");
  const [current, setCurrent] = useState(0);
  const wanted = useDeferredValue(query);

  // Rows have one height, so which are seen is a division. Who follows the end
  // gets its rows with the text, before the place is scrolled to them.
  const from = Math.max(0, (following.current ? count - seen : Math.min(first, count - seen)) - around);
  const rows = Array.from({ length: Math.min(count, from + seen + 2 * around) - from }, (_, i) => from + i);

  // biome-ignore lint/correctness/useExhaustiveDependencies: the text's version stands for its lines
  const matches = useMemo(() => {
    if (wanted === "") return [];
    const needle = wanted.toLowerCase();
    const found: number[] = [];
    for (let i = 0; i < count; i++) {
      if (
        lineText(terminal.lines[i] ?? "")
          .toLowerCase()
          .includes(needle)
      )
        found.push(i);
    }
    return found;
  }, [wanted, terminal, terminal.version, count]);
  const matching = useMemo(() => new Set(matches), [matches]);

  // Who is at the end stays there while text comes, and when the place gets its size.
  const toEnd = () => {
    const el = scroller.current;
    if (!el || !following.current) return;
    el.scrollTop = el.scrollHeight;
    last.current = { top: el.scrollTop, height: el.scrollHeight };
  };
  // biome-ignore lint/correctness/useExhaustiveDependencies: each row moves the end
  useLayoutEffect(toEnd, [count]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: it only looks at refs
  useEffect(() => {
    const el = scroller.current;
    if (!el || typeof ResizeObserver === "undefined") return;
    const observer = new ResizeObserver(toEnd);
    observer.observe(el);
    return () => observer.disconnect();
  }, []);
  const onScroll = () => {
    const el = scroller.current;
    if (!el) return;
    const { scrollTop: top, scrollHeight: height } = el;
    // Text that comes or goes moves the end too. Only who goes up leaves it: by
    // hand, or by something that scrolled while the text stayed as it was.
    const up = top < last.current.top - 1;
    if (height - top - el.clientHeight < rowHeight * 2) following.current = true;
    else if (up && (height === last.current.height || performance.now() - touched.current < 1000))
      following.current = false;
    last.current = { top, height };
    if (following.current) toEnd();
    setFirst(Math.floor(el.scrollTop / rowHeight));
  };

  const go = (to: number) => {
    if (matches.length === 0) return;
    const next = (to + matches.length) % matches.length;
    setCurrent(next);
    following.current = false;
    scroller.current?.scrollTo({ top: ((matches[next] as number) - seen / 2) * rowHeight });
  };
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new search begins at its first match
  useEffect(() => {
    if (wanted !== "") go(0);
  }, [wanted]);

  const close = () => {
    setSearching(false);
    setQuery("");
  };
  const copy = async () => {
    await navigator.clipboard.writeText(terminal.lines.slice(0, count).map(lineText).join("\n"));
    toast.success(s.copied);
  };

  return (
    <div className="overflow-hidden rounded-md border">
      <div className="flex h-9 items-center gap-0.5 border-b bg-sunken pr-1 pl-3 text-muted text-xs">
        <span className="min-w-0 flex-1 truncate tabular-nums" aria-live="off">
          {s.lines(formatNumber(count))}
        </span>
        {searching && (
          <>
            <input
              // biome-ignore lint/a11y/noAutofocus: it was opened to be typed into
              autoFocus
              aria-label={s.search}
              placeholder={s.search}
              className="h-6 w-40 min-w-0 rounded border border-line-strong bg-surface px-2 text-ink"
              value={query}
              onChange={(event) => setQuery(event.target.value)}
              onKeyDown={(event) => {
                event.stopPropagation();
                if (event.key === "Enter") go(current + (event.shiftKey ? -1 : 1));
                if (event.key === "Escape") close();
              }}
            />
            <span className="px-1.5 tabular-nums" aria-live="polite">
              {query === ""
                ? ""
                : matches.length === 0
                  ? s.noMatch
                  : s.match(current + 1, formatNumber(matches.length))}
            </span>
            <IconButton size="sm" label={s.previous} onClick={() => go(current - 1)}>
              <ChevronUp />
            </IconButton>
            <IconButton size="sm" label={s.next} onClick={() => go(current + 1)}>
              <ChevronDown />
            </IconButton>
          </>
        )}
        <IconButton
          size="sm"
          label={s.search}
          aria-pressed={searching}
          onClick={() => (searching ? close() : setSearching(true))}
        >
          {searching ? <X /> : <Search />}
        </IconButton>
        <IconButton size="sm" label={s.copyAll} onClick={copy}>
          <Copy />
        </IconButton>
        {download && (
          <a
            className="inline-flex size-7 items-center justify-center rounded-md hover:bg-hover hover:text-ink [&_svg]:size-4"
            href={download}
            download
            aria-label={s.downloadAll}
            title={s.downloadAll}
          >
            <Download />
          </a>
        )}
      </div>
      <div
        ref={scroller}
        className={cx(className, "overflow-auto overscroll-contain [overflow-anchor:none]")}
        style={{ height: viewHeight }}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label={s.lines(formatNumber(count))}
        onWheel={touch}
        onPointerDown={touch}
        onTouchMove={touch}
        onKeyDown={touch}
        onScroll={onScroll}
      >
        <div className="relative min-w-full" style={{ height: count * rowHeight }}>
          {rows.map((row) => (
            <div
              key={row}
              className={cx(
                "absolute left-0 min-w-full whitespace-pre px-3 leading-5",
                matching.has(row) && (matches[current] === row ? "bg-gold/45" : "bg-gold/20"),
              )}
              style={{ top: row * rowHeight, height: rowHeight }}
            >
              <LineView line={terminal.lines[row] ?? ""} />
            </div>
          ))}
        </div>
      </div>
    </div>
  );
}
