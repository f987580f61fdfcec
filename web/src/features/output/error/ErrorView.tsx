import { ChevronRight, CircleAlert, Copy } from "lucide-react";
import { useMemo, useState } from "react";
import type { Output } from "@/api/types";
import { cx } from "@/lib/cx";
import { IconButton, toast } from "@/ui";
import { useStrings } from "../strings";
import { LineView } from "../text/LineView";
import { Terminal } from "../text/terminal";
import { groupFrames, type Part, parseTraceback, withoutColours } from "./traceback";

function Lines({ text }: { text: string }) {
  const lines = useMemo(() => {
    const terminal = new Terminal();
    terminal.feed(text);
    return terminal.lines;
  }, [text]);
  return lines.map((line, i) => (
    // biome-ignore lint/suspicious/noArrayIndexKey: a line is its place
    <div key={i} className="min-h-5">
      <LineView line={line} />
    </div>
  ));
}

function shortFile(file: string): string {
  return file.replace(/^.*(?:site-packages|dist-packages)\//, "").replace(/^.*\/lib\/python[\d.]+\//, "");
}

function Folded({ parts }: { parts: Part[] }) {
  const s = useStrings();
  const [open, setOpen] = useState(false);
  const names = [...new Set(parts.map((part) => shortFile(part.file ?? "")))].join(", ");
  return (
    <div className="my-1">
      <button
        type="button"
        aria-expanded={open}
        className="flex max-w-full items-center gap-1 rounded px-1 py-0.5 font-sans text-muted text-xs hover:bg-hover hover:text-ink"
        onClick={() => setOpen(!open)}
      >
        <ChevronRight className={cx("size-3.5 shrink-0 transition-transform", open && "rotate-90")} />
        <span className="shrink-0">{s.libraryFrames(parts.length)}</span>
        <span className="truncate">{names}</span>
      </button>
      {open && (
        <div className="ml-2.5 border-line-strong border-l pl-3">
          {parts.map((part, i) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: a frame is its place
            <div key={i} className="py-1">
              <Lines text={part.text} />
            </div>
          ))}
        </div>
      )}
    </div>
  );
}

/** An exception: what it says first, then where it came from. */
export function ErrorView({ output }: { output: Output }) {
  const s = useStrings();
  const traceback = output.traceback ?? [];
  const name = output.ename ?? "";
  const value = output.evalue ?? "";
  const groups = useMemo(() => {
    const parts = parseTraceback(traceback);
    // The rule and the heading at the top, and the last line, say again what stands above.
    const head = parts.findIndex((part) => part.kind !== "text");
    const shown =
      head < 0
        ? parts
        : parts.filter(
            (part, i) => i >= head || !/^-+$|Traceback \(most recent call last\)/.test(withoutColours(part.text)),
          );
    const last = shown.at(-1);
    const same = `${name}: ${value}`.trim();
    if (shown.length > 1 && last?.kind === "text" && withoutColours(last.text).trim() === same) shown.pop();
    return groupFrames(shown);
  }, [traceback, name, value]);
  const copy = async () => {
    await navigator.clipboard.writeText(withoutColours(traceback.join("\n")) || `${name}: ${value}`);
    toast.success(s.copied);
  };
  return (
    <div className="group/error overflow-hidden rounded-md border border-danger/35 bg-danger-soft/45">
      <div className="flex items-start gap-2 px-3 py-2">
        <CircleAlert className="mt-0.5 size-4 shrink-0 text-danger" aria-hidden />
        <p className="min-w-0 flex-1 whitespace-pre-wrap text-sm leading-5 [overflow-wrap:anywhere]">
          <strong className="font-semibold text-danger">{name}</strong>
          {value !== "" && <span>: {value.length > 2000 ? `${value.slice(0, 2000)}…` : value}</span>}
        </p>
        <IconButton size="sm" className="-my-1 -mr-1.5" label={s.copy} onClick={copy}>
          <Copy />
        </IconButton>
      </div>
      {groups.length > 0 && (
        <div className="max-h-160 overflow-auto border-danger/20 border-t px-3 py-2 font-mono text-[0.8125rem] leading-5">
          {groups.map((group, i) =>
            group.kind === "folded" ? (
              // biome-ignore lint/suspicious/noArrayIndexKey: a group is its place
              <Folded key={i} parts={group.parts} />
            ) : (
              // biome-ignore lint/suspicious/noArrayIndexKey: a group is its place
              <div key={i}>
                {group.parts.map((part, j) => (
                  // biome-ignore lint/suspicious/noArrayIndexKey: a frame is its place
                  <div key={j} className="whitespace-pre-wrap py-1 [overflow-wrap:anywhere]">
                    <Lines text={part.text} />
                  </div>
                ))}
              </div>
            ),
          )}
        </div>
      )}
    </div>
  );
}
