import { Check, Copy, Play, WrapText } from "lucide-react";
import { memo, useContext, useEffect, useRef, useState } from "react";
import { isPython } from "@/features/notebook/highlight/languages";
import { StaticCode } from "@/features/notebook/highlight/StaticCode";
import { useStrings } from "../strings";
import { RunCode } from "./context";
import { copyText } from "./copy";

/** A fenced block of a message: its language, its colours, and what one can do with it. */
export const CodeBlock = memo(function CodeBlock(props: { code: string; language: string }) {
  const { code, language } = props;
  const s = useStrings();
  const run = useContext(RunCode);
  const [wrap, setWrap] = useState(false);
  const button =
    "inline-flex h-7 items-center gap-1.5 rounded-md px-2 text-xs text-muted hover:bg-line/60 hover:text-ink focus-visible:outline-2 focus-visible:outline-accent";
  return (
    <div className="code-block my-3 overflow-hidden rounded-lg border border-line bg-raised">
      <div className="flex h-8 items-center justify-between pr-0.5 pl-3">
        <span className="text-xs text-muted select-none">{language || s.code.text}</span>
        <span className="flex items-center">
          <button
            type="button"
            className={button}
            aria-pressed={wrap}
            aria-label={s.code.wrap}
            title={s.code.wrap}
            onClick={() => setWrap(!wrap)}
          >
            <WrapText className="size-3.5" aria-hidden />
          </button>
          <CopyButton text={code} className={button} />
          {run && isPython(language) ? (
            <button type="button" className={button} onClick={() => run(code)}>
              <Play className="size-3.5" aria-hidden />
              {s.code.runAsCell}
            </button>
          ) : null}
        </span>
      </div>
      <StaticCode code={code} language={language} {...(wrap ? { className: "code-wrap" } : {})} />
    </div>
  );
});

/** Copies text and says so for a moment. */
export function CopyButton(props: {
  text: string | (() => string);
  className: string;
  label?: string;
  bare?: boolean;
}) {
  const s = useStrings();
  const [done, setDone] = useState(false);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const label = done ? s.copied : (props.label ?? s.copy);
  const copy = async () => {
    const text = typeof props.text === "string" ? props.text : props.text();
    if (!(await copyText(text))) return;
    setDone(true);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setDone(false), 1600);
  };
  const Icon = done ? Check : Copy;
  return (
    <button type="button" className={props.className} onClick={copy} aria-label={label} title={label}>
      <Icon className="size-3.5" aria-hidden />
      {props.bare ? null : <span aria-hidden>{done ? s.copied : s.copy}</span>}
    </button>
  );
}
