import type { Output } from "../../src/api/types";
import type { Server } from "./server";

/** A cell of a notebook, with outputs as nbformat keeps them. */
export interface NotebookCell {
  code?: string;
  markdown?: string;
  outputs?: Output[];
}

export function notebook(cells: NotebookCell[]): unknown {
  return {
    nbformat: 4,
    nbformat_minor: 5,
    metadata: { language_info: { name: "python" } },
    cells: cells.map((cell, i) =>
      cell.markdown !== undefined
        ? { id: `c${i}`, cell_type: "markdown", metadata: {}, source: cell.markdown }
        : {
            id: `c${i}`,
            cell_type: "code",
            metadata: {},
            source: cell.code ?? "",
            execution_count: cell.outputs?.length ? i + 1 : null,
            outputs: cell.outputs ?? [],
          },
    ),
  };
}

/** Makes a session that holds these cells, with no sandbox and no run; gives its id. */
export async function importSession(server: Server, title: string, cells: NotebookCell[]): Promise<string> {
  const session = await server.api<{ id: string }>(
    "POST",
    `/v1/sessions/import?title=${encodeURIComponent(title)}`,
    notebook(cells),
  );
  return session.id;
}

export const display = (data: Record<string, unknown>, metadata: Record<string, unknown> = {}): Output =>
  ({ output_type: "display_data", data, metadata }) as Output;
export const html = (text: string): Output => display({ "text/html": text });
export const stream = (text: string, name = "stdout"): Output => ({ output_type: "stream", name, text });
