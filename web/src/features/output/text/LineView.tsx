import { type CSSProperties, Fragment, memo, type ReactNode, useState } from "react";
import { cx } from "@/lib/cx";
import { formatNumber } from "@/lib/format";
import { useStrings } from "../strings";
import { plain, type Style } from "./style";
import { type Line, lineText, type Run } from "./terminal";
import "./ansi.css";

function look(style: Style): { className: string; style?: CSSProperties } {
  // Classes for the theme's colours; others are set as properties, never as text of a style attribute.
  const own: CSSProperties & { "--c"?: string } = {};
  const { fg, bg } = style;
  // On the page's own ground a colour is moved until it can be read there; one with a ground of its own is as it was meant.
  const alone = typeof fg === "string" && bg === undefined && !style.inverse;
  if (alone) own["--c"] = fg;
  else if (typeof fg === "string") own[style.inverse ? "backgroundColor" : "color"] = fg;
  if (typeof bg === "string") own[style.inverse ? "color" : "backgroundColor"] = bg;
  const className = cx(
    typeof fg === "number" && `ansi-${fg}`,
    typeof fg === "number" && !style.inverse && "ansi-fg",
    alone && "ansi-own",
    typeof bg === "number" && !style.inverse && `ansi-bg ansi-b-${bg}`,
    style.bold && "ansi-bold",
    style.dim && "ansi-dim",
    style.italic && "ansi-italic",
    style.underline && "ansi-underline",
    style.strike && "ansi-strike",
    style.hidden && "ansi-hidden",
    style.inverse && "ansi-inverse",
  );
  return Object.keys(own).length > 0 ? { className, style: own } : { className };
}

const url = /https?:\/\/[^\s<>"'`]+/g;

function Link({ href, children }: { href: string; children: ReactNode }) {
  return (
    <a
      className="underline decoration-line-strong underline-offset-2 hover:text-accent"
      href={href}
      target="_blank"
      rel="noopener noreferrer nofollow"
    >
      {children}
    </a>
  );
}

/** Text with the addresses in it as links. */
function linked(text: string): ReactNode {
  if (!text.includes("://")) return text;
  const parts: ReactNode[] = [];
  let at = 0;
  for (const match of text.matchAll(url)) {
    // Punctuation behind an address belongs to the sentence.
    const address = match[0].replace(/[.,;:!?)\]}]+$/, "");
    parts.push(
      text.slice(at, match.index),
      <Link key={match.index} href={address}>
        {address}
      </Link>,
    );
    at = match.index + address.length;
  }
  parts.push(text.slice(at));
  return parts;
}

function RunView({ run }: { run: Run }) {
  if (run.style === plain) return linked(run.text);
  const { link } = run.style;
  return <span {...look(run.style)}>{link ? <Link href={link}>{run.text}</Link> : linked(run.text)}</span>;
}

// Browsers lay out lines of a million characters in seconds.
const maxShown = 5000;

function head(line: Line, length: number): Line {
  if (typeof line === "string") return line.slice(0, length);
  const runs: Run[] = [];
  let left = length;
  for (const run of line) {
    if (left <= 0) break;
    runs.push({ text: run.text.slice(0, left), style: run.style });
    left -= run.text.length;
  }
  return runs;
}

/** One line. Lines are values: the same line is not drawn again. */
export const LineView = memo(function LineView({ line }: { line: Line }) {
  const s = useStrings();
  const [shown, setShown] = useState(maxShown);
  const length = typeof line === "string" ? line.length : lineText(line).length;
  const part = length > shown ? head(line, shown) : line;
  return (
    <>
      {typeof part === "string"
        ? linked(part)
        : part.map((run, i) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: runs have no other name
            <Fragment key={i}>
              <RunView run={run} />
            </Fragment>
          ))}
      {length > shown && (
        <button
          type="button"
          className="ml-1 rounded bg-hover px-1.5 text-muted text-xs hover:text-ink"
          onClick={() => setShown(shown * 10)}
        >
          … {s.restOfLine(formatNumber(length - shown))}
        </button>
      )}
    </>
  );
});
