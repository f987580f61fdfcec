import { BookOpen } from "lucide-react";
import { useMemo } from "react";
import { send } from "@/api/client";
import type { Item, Json, Output } from "@/api/types";
import { Markdown } from "@/features/chat/Markdown";
import { StaticCode } from "@/features/notebook/highlight/StaticCode";
import { Outputs } from "@/features/output/Outputs";
import { importNotebook } from "@/features/session/sessions";
import { Button, toast } from "@/ui";
import { contentUrl, type Entry } from "./api";
import { useStrings } from "./strings";

type Cell = Record<string, Json>;

/** nbformat has text as one string or as a list of lines. */
function joined(text: Json | undefined): string {
  return Array.isArray(text)
    ? text.filter((t) => typeof t === "string").join("")
    : typeof text === "string"
      ? text
      : "";
}

function outputOf(raw: Json): Output | null {
  if (typeof raw !== "object" || raw === null || Array.isArray(raw)) return null;
  const type = raw.output_type;
  if (type === "stream") return { output_type: "stream", name: joined(raw.name) || "stdout", text: joined(raw.text) };
  if (type === "error") {
    const traceback = Array.isArray(raw.traceback) ? raw.traceback.filter((t) => typeof t === "string") : [];
    return { output_type: "error", ename: joined(raw.ename), evalue: joined(raw.evalue), traceback };
  }
  if (type !== "display_data" && type !== "execute_result") return null;
  const data: Record<string, Json> = {};
  for (const [mime, value] of Object.entries((raw.data ?? {}) as Record<string, Json>)) {
    data[mime] = Array.isArray(value) && !mime.endsWith("json") ? joined(value) : value;
  }
  return { output_type: type, data, metadata: (raw.metadata ?? {}) as Record<string, Json> };
}

function itemOf(cell: Cell, i: number): Item {
  const outputs = (Array.isArray(cell.outputs) ? cell.outputs : []).map(outputOf).filter((o) => o !== null);
  const count = typeof cell.execution_count === "number" ? cell.execution_count : undefined;
  return {
    id: `preview-${i}`,
    kind: "cell",
    status: "ok",
    code: joined(cell.source),
    outputs,
    ...(count === undefined ? {} : { execution_count: count }),
    created_at: "",
    updated_at: "",
  };
}

/** A notebook to be read: its cells with the outputs it was saved with. */
export default function NotebookView({
  sessionId,
  entry,
  notebook,
}: {
  sessionId: string;
  entry: Entry;
  notebook: Json;
}) {
  const s = useStrings();
  const cells = useMemo(() => {
    const all = typeof notebook === "object" && notebook !== null && !Array.isArray(notebook) ? notebook.cells : null;
    return (Array.isArray(all) ? all : []).filter(
      (c): c is Cell => typeof c === "object" && c !== null && !Array.isArray(c),
    );
  }, [notebook]);
  const open = async () => {
    try {
      const response = await send("GET", contentUrl(sessionId, entry));
      await importNotebook(new File([await response.blob()], entry.name));
    } catch (err) {
      toast.failure(err);
    }
  };
  return (
    <div className="mx-auto max-w-4xl p-4">
      <div className="flex justify-end pb-3">
        <Button size="sm" variant="primary" onClick={() => void open()}>
          <BookOpen aria-hidden className="size-4" />
          {s.openNotebook}
        </Button>
      </div>
      <div className="flex flex-col gap-4">
        {cells.map((cell, i) => {
          const item = itemOf(cell, i);
          const key = i; // the notebook does not change here
          if (cell.cell_type === "markdown") return <Markdown key={key} text={joined(cell.source)} />;
          if (cell.cell_type !== "code") {
            return (
              <pre key={key} className="overflow-auto rounded-lg bg-sunken p-3 text-sm">
                {joined(cell.source)}
              </pre>
            );
          }
          return (
            <section key={key} aria-label={`${s.cell} ${item.execution_count ?? ""}`} className="min-w-0">
              <div className="flex gap-2">
                <span className="w-10 shrink-0 pt-2 text-right font-mono text-2xs text-muted">
                  [{item.execution_count ?? " "}]
                </span>
                <div className="min-w-0 flex-1 overflow-auto rounded-lg border bg-sunken px-3 py-2">
                  <StaticCode code={item.code ?? ""} />
                </div>
              </div>
              {(item.outputs?.length ?? 0) > 0 && (
                <div className="mt-1 ml-12 min-w-0">
                  <Outputs item={item} sessionId={sessionId} />
                </div>
              )}
            </section>
          );
        })}
      </div>
    </div>
  );
}
