// Outputs of a cell on their way, as internal/httpapi/nbformat folds them:
// text of one stream joined, display updates and clear_output applied.
import type { Json, Output } from "@/api/types";
import { Chunks } from "@/lib/chunks";

/** A stream output whose text grows without being copied for each piece. */
export class StreamOutput implements Output {
  readonly output_type = "stream";
  readonly name: string;
  readonly chunks: Chunks;
  readonly refs?: Output["refs"];

  constructor(name: string, chunks: Chunks, refs?: Output["refs"]) {
    this.name = name;
    this.chunks = chunks;
    if (refs) this.refs = refs;
  }

  get text(): string {
    return this.chunks.toString();
  }

  toJSON(): Output {
    const plain = { output_type: this.output_type, name: this.name, text: this.text } as const;
    return this.refs ? { ...plain, refs: this.refs } : plain;
  }
}

export function isStream(output: Output): output is StreamOutput {
  return output instanceof StreamOutput;
}

/** Outputs as the server sent them, made ready to grow. */
export function loadOutputs(outputs: readonly Output[]): Output[] {
  return outputs.map((output) =>
    output.output_type === "stream" && !isStream(output)
      ? new StreamOutput(output.name ?? "stdout", Chunks.of(output.text ?? ""), output.refs)
      : output,
  );
}

interface Display {
  data?: Record<string, Json> | null;
  metadata?: Record<string, Json> | null;
  transient?: { display_id?: unknown } | null;
  execution_count?: number;
}

// Lists that the next output clears: clear_output(wait=True) came last.
const pendingClear = new WeakSet<Output[]>();

function idOf(display: Display): string {
  const id = display.transient?.display_id;
  return typeof id === "string" ? id : "";
}

function filled(output: Output, display: Display): Output {
  const next: Output = { ...output, data: display.data ?? {}, metadata: display.metadata ?? {} };
  delete next.refs;
  return next;
}

/** The list one output of an execution leads to. The given list stays as it is. */
export function foldOutput(outputs: readonly Output[], type: string, data: unknown): Output[] {
  const current = outputs as Output[];
  const kept = () => (pendingClear.has(current) ? [] : current.slice());
  switch (type) {
    case "output.stream": {
      const { name, text } = data as { name: string; text: string };
      const next = kept();
      const last = next.at(-1);
      if (last && isStream(last) && last.name === name) {
        next[next.length - 1] = new StreamOutput(name, last.chunks.append(text), last.refs);
      } else {
        next.push(new StreamOutput(name, Chunks.of(text)));
      }
      return next;
    }
    case "output.display_data":
    case "output.execute_result": {
      const display = data as Display;
      const output = filled(
        { output_type: type === "output.display_data" ? "display_data" : "execute_result" },
        display,
      );
      if (type === "output.execute_result" && display.execution_count !== undefined) {
        output.execution_count = display.execution_count;
      }
      const id = idOf(display);
      if (id !== "") output.display_id = id;
      const next = kept();
      next.push(output);
      return next;
    }
    case "output.error": {
      const error = data as { ename: string; evalue: string; traceback: string[] | null };
      const next = kept();
      next.push({ output_type: "error", ename: error.ename, evalue: error.evalue, traceback: error.traceback ?? [] });
      return next;
    }
    case "output.clear": {
      if (!(data as { wait?: boolean }).wait) return [];
      const next = current.slice();
      pendingClear.add(next);
      return next;
    }
    default:
      return current;
  }
}

/** Applies output.update_display_data to one cell's outputs; the same list if none has the id. */
export function updateDisplays(outputs: readonly Output[], data: unknown): Output[] {
  const current = outputs as Output[];
  const display = data as Display;
  const id = idOf(display);
  if (id === "" || !current.some((output) => output.display_id === id)) return current;
  const next = current.map((output) => (output.display_id === id ? filled(output, display) : output));
  if (pendingClear.has(current)) pendingClear.add(next);
  return next;
}

/** Many pieces of one stream in one go: what a frame brought. */
export function joinStreams<E extends { type: string; item_id?: string; execution_id?: string; data: unknown }>(
  events: readonly E[],
): E[] {
  const joined: E[] = [];
  let texts: string[] = [];
  let open: E | undefined;
  const close = () => {
    if (!open) return;
    const { name, text } = open.data as { name: string; text: string };
    joined.push(texts.length === 0 ? open : { ...open, data: { name, text: text + texts.join("") } });
    open = undefined;
    texts = [];
  };
  for (const event of events) {
    if (event.type !== "output.stream") {
      close();
      joined.push(event);
      continue;
    }
    const data = event.data as { name: string; text: string };
    if (
      open &&
      open.item_id === event.item_id &&
      open.execution_id === event.execution_id &&
      (open.data as { name: string }).name === data.name
    ) {
      texts.push(data.text);
    } else {
      close();
      open = event;
    }
  }
  close();
  return joined;
}
