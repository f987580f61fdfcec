import { useRef } from "react";
import { Chunks } from "@/lib/chunks";
import { Terminal } from "./terminal";

/** Text as it may come: whole, as pieces that grow, or as nbformat's list of lines. */
export type TextSource = string | readonly string[] | Chunks;

interface Fed {
  terminal: Terminal;
  source: TextSource;
}

function restOf(source: TextSource, earlier: TextSource | undefined): string[] | undefined {
  if (earlier === undefined)
    return source instanceof Chunks ? source.from(0) : typeof source === "string" ? [source] : [...source];
  if (source === earlier) return [];
  if (source instanceof Chunks) {
    return earlier instanceof Chunks && source.continues(earlier) ? source.from(earlier.count) : undefined;
  }
  if (typeof source === "string") {
    return typeof earlier === "string" && source.startsWith(earlier) ? [source.slice(earlier.length)] : undefined;
  }
  return undefined;
}

/** The lines of a text that grows. Only what is new is read. */
export function useTerminal(source: TextSource): Terminal {
  const ref = useRef<Fed>(undefined);
  let rest = restOf(source, ref.current?.source);
  if (!ref.current || rest === undefined) {
    ref.current = { terminal: new Terminal(), source };
    rest = restOf(source, undefined) ?? [];
  }
  for (const piece of rest) ref.current.terminal.feed(piece);
  ref.current.source = source;
  return ref.current.terminal;
}
