import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { ApiError, call, sessionPath } from "@/api/client";
import type { Json, Table } from "@/api/types";
import { useMay } from "@/features/account/me";
import { compareCells } from "./format";

export type TableSource =
  | { kind: "frame"; sessionId: string; value: Partial<Table> }
  | { kind: "file"; sessionId: string; path: string; sheet?: string }
  | { kind: "variable"; sessionId: string; name: string };

export interface Sort {
  column: number;
  name: string;
  descending: boolean;
}

export interface Row {
  label: Json | undefined; // undefined: its number
  cells: Json[];
}

export type Shape = Pick<Table, "columns" | "total_rows" | "total_columns"> & { sheets: string[]; labelled: boolean };

export interface Pages {
  shape: Shape | undefined;
  row(i: number): Row | undefined;
  /** Asks for the rows that are seen; those that are there are not fetched again. */
  want(first: number, last: number): void;
  error: ApiError | undefined;
  retry(): void;
  /** What a cell brought is all there is. */
  gone: boolean;
  /** All rows, up to a number. */
  all(most: number): Promise<Row[]>;
}

const pageSize = 200;

// The most rows that the server gives at a time.
const downloadPage = 1000;

// How soon a kernel that was busy is asked again.
const busyWait = 1500;

/** Frames come from a cell, which is foreign: what is no table must not break the page. */
export function readTable(value: Partial<Table>): Table {
  const columns = Array.isArray(value.columns) ? value.columns : [];
  const rows = Array.isArray(value.rows) ? value.rows.filter(Array.isArray) : [];
  const count = (n: unknown, least: number) =>
    typeof n === "number" && Number.isFinite(n) ? Math.max(Math.floor(n), least) : least;
  return {
    ...(typeof value.id === "string" && value.id !== "" ? { id: value.id } : {}),
    columns: columns.map((column) => ({
      name: String(column?.name ?? ""),
      dtype: String(column?.dtype ?? ""),
      nulls: typeof column?.nulls === "number" ? column.nulls : null,
    })),
    ...(Array.isArray(value.index) ? { index: value.index } : {}),
    rows,
    offset: count(value.offset, 0),
    total_rows: value.total_rows === -1 ? -1 : count(value.total_rows, rows.length),
    total_columns: count(value.total_columns, columns.length),
    sheets: Array.isArray(value.sheets) ? value.sheets.map(String) : [],
  };
}

function queryOf(source: TableSource): Record<string, string | undefined> {
  switch (source.kind) {
    case "frame":
      return { frame: typeof source.value.id === "string" ? source.value.id : undefined };
    case "variable":
      return { variable: source.name };
    default:
      return { path: source.path, sheet: source.sheet };
  }
}

function rowsOf(table: Table): Row[] {
  return table.rows.map((cells, i) => ({ label: table.index?.[i], cells }));
}

function keyOf(source: TableSource): string {
  return JSON.stringify([source.kind, source.sessionId, queryOf(source)]);
}

/** Rows of a table, page by page as they are seen. */
export function usePages(source: TableSource, sort: Sort | undefined): Pages {
  const frame = source.kind === "frame" ? source.value : undefined;
  const first = useMemo(() => (frame ? readTable(frame) : undefined), [frame]);
  // Asking for more of a frame runs code; who may only look sees what the cell brought.
  const runs = useMay("execute");
  const paged = source.kind !== "frame" || (runs && first?.id !== undefined && first.total_rows > first.rows.length);
  const key = `${keyOf(source)}|${sort ? `${sort.name}|${sort.descending}` : ""}`;
  const sourceNow = useRef(source);
  sourceNow.current = source;

  const [, redraw] = useState(0);
  const [gone, setGone] = useState(false);
  const [error, setError] = useState<ApiError>();
  const [shape, setShape] = useState<Shape>();
  const pages = useRef(new Map<number, Row[] | "coming">());
  const keyNow = useRef(key);
  if (keyNow.current !== key) {
    keyNow.current = key;
    pages.current = new Map();
  }

  const local = useMemo(() => {
    if (!first) return undefined;
    const rows = rowsOf(first);
    if (!sort || (paged && !gone)) return rows;
    // Only what is here can be sorted here.
    return rows.toSorted((a, b) => compareCells(a.cells[sort.column], b.cells[sort.column], sort.descending));
  }, [first, sort, paged, gone]);

  const fetchPage = useCallback(
    (offset: number, limit: number) =>
      call<Table>("GET", sessionPath(sourceNow.current.sessionId, "table"), {
        query: {
          ...queryOf(sourceNow.current),
          offset,
          limit,
          sort: sort?.name,
          descending: sort?.descending ? true : undefined,
        },
      }).then(readTable),
    [sort],
  );

  const accept = useCallback((table: Table) => {
    setShape({
      columns: table.columns,
      total_rows: table.total_rows,
      total_columns: table.total_columns,
      sheets: table.sheets ?? [],
      labelled: table.index !== undefined,
    });
  }, []);

  const load = useCallback(
    (page: number) => {
      if (pages.current.has(page)) return;
      const mine = key;
      pages.current.set(page, "coming");
      fetchPage(page * pageSize, pageSize).then(
        (table) => {
          if (keyNow.current !== mine) return;
          pages.current.set(page, rowsOf(table));
          setError(undefined);
          accept(table);
          redraw((n) => n + 1);
        },
        (err: unknown) => {
          if (keyNow.current !== mine) return;
          pages.current.delete(page);
          const failure = err instanceof ApiError ? err : new ApiError(0, "table", String(err));
          if (failure.code === "kernel-busy") {
            // The cell that runs will end; the rows that are here can be looked at meanwhile.
            setTimeout(() => keyNow.current === mine && redraw((n) => n + 1), busyWait);
          } else if (sourceNow.current.kind === "frame" && [404, 409, 410].includes(failure.status)) setGone(true);
          else setError(failure);
        },
      );
    },
    [key, fetchPage, accept],
  );

  // biome-ignore lint/correctness/useExhaustiveDependencies: the key says when the source is another one
  useEffect(() => {
    setError(undefined);
    if (first) accept(first);
    else load(0);
  }, [key, first]);

  const useServer = paged && !gone;
  const want = (from: number, to: number) => {
    if (!useServer || error) return;
    for (let page = Math.floor(from / pageSize); page * pageSize < to; page++) {
      // The first page of a frame came with it.
      if (page === 0 && first && !sort && first.rows.length >= Math.min(pageSize, first.total_rows)) continue;
      load(page);
    }
  };

  const row = (i: number): Row | undefined => {
    if (local && (!useServer || (!sort && i < local.length))) return local[i];
    const page = pages.current.get(Math.floor(i / pageSize));
    return page === undefined || page === "coming" ? undefined : page[i % pageSize];
  };

  const all = async (most: number): Promise<Row[]> => {
    if (local && !useServer) return local.slice(0, most);
    const rows: Row[] = [];
    for (;;) {
      const table = await fetchPage(rows.length, Math.min(downloadPage, most - rows.length));
      rows.push(...rowsOf(table));
      if (table.rows.length === 0 || rows.length >= most || (table.total_rows >= 0 && rows.length >= table.total_rows))
        return rows;
    }
  };

  const known = first && (!paged || gone) ? { ...first, total_rows: first.rows.length } : (shape ?? first);
  return {
    shape: known && {
      columns: known.columns,
      total_rows:
        known.total_rows < 0 ? Math.max(known.total_rows, countLoaded(pages.current, local)) : known.total_rows,
      total_columns: known.total_columns,
      sheets: known.sheets ?? [],
      labelled: "labelled" in known ? known.labelled : first?.index !== undefined,
    },
    row,
    want,
    error,
    retry: () => setError(undefined),
    gone: first !== undefined && first.total_rows > first.rows.length && !useServer,
    all,
  };
}

/** With rows nobody counted: those that came, and one more page as long as pages are full. */
function countLoaded(pages: Map<number, Row[] | "coming">, local: Row[] | undefined): number {
  let count = local?.length ?? 0;
  for (const [page, rows] of pages) {
    if (rows === "coming") continue;
    count = Math.max(count, page * pageSize + rows.length + (rows.length === pageSize ? pageSize : 0));
  }
  return count;
}
