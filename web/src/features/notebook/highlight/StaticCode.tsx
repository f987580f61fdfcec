import { memo, useMemo, useRef } from "react";
import { type LineReader, lineReader } from "./languages";
import type { LineState, Token } from "./python";

interface Line {
  text: string;
  before: LineState;
  after: LineState;
  tokens: Token[];
}

/**
 * Lines of text with their tokens. Lines that did not change since the last
 * call are the same objects, so that React skips them: while code streams in
 * only its last line is read and drawn.
 */
export function readLines(text: string, read: LineReader, last: readonly Line[]): Line[] {
  let state: LineState = "";
  return text.split("\n").map((line, i) => {
    const old = last[i];
    if (old && old.text === line && old.before === state) {
      state = old.after;
      return old;
    }
    const { tokens, state: after } = read(line, state);
    const made = { text: line, before: state, after, tokens };
    state = after;
    return made;
  });
}

const CodeLine = memo(function CodeLine({ line }: { line: Line }) {
  return (
    <div className="code-line">
      {line.tokens.map(([text, style], i) =>
        style ? (
          // biome-ignore lint/suspicious/noArrayIndexKey: tokens of a line have no other identity
          <span key={i} className={style}>
            {text}
          </span>
        ) : (
          text
        ),
      )}
      {line.text === "" ? "\n" : null}
    </div>
  );
});

/** Code that can be read and selected but not edited, coloured and laid out exactly as the editor does. */
export const StaticCode = memo(function StaticCode(props: {
  code: string;
  language?: string;
  caret?: boolean; // shows where the next token will come
  lineNumbers?: boolean;
  className?: string;
}) {
  const { code, language = "python", caret, lineNumbers, className } = props;
  const read = useMemo(() => lineReader(language), [language]);
  const kept = useRef<{ read: LineReader; lines: Line[] }>({ read, lines: [] });
  const lines = useMemo(() => {
    const made = readLines(code, read, kept.current.read === read ? kept.current.lines : []);
    kept.current = { read, lines: made };
    return made;
  }, [code, read]);
  return (
    <pre
      // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
      tabIndex={0}
      className={`code-view${caret ? " code-caret" : ""}${lineNumbers ? " code-numbered" : ""}${className ? ` ${className}` : ""}`}
    >
      <code>
        {lines.map((line, i) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: a line is its number
          <CodeLine key={i} line={line} />
        ))}
      </code>
    </pre>
  );
});
