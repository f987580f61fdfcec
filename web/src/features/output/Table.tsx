// biome-ignore-all lint/a11y/useSemanticElements: rows and columns out of sight are not made, which <table> can't do
import { ArrowDown, ArrowUp, Download, RotateCw } from "lucide-react";
import { type KeyboardEvent, type PointerEvent, useEffect, useId, useMemo, useRef, useState } from "react";
import type { Json } from "@/api/types";
import { useMay } from "@/features/account/me";
import { cx } from "@/lib/cx";
import { formatNumber } from "@/lib/format";
import { Button, Skeleton, toast } from "@/ui";
import { saveFile } from "./rich/useBlobURL";
import { useStrings } from "./strings";
import { decimalsOf, formatCell, isNumeric, plainCell, toCSV, toTSV, widthOf } from "./table/format";
import { type Row, type Sort, type TableSource, usePages } from "./table/usePages";
import { columnWindow, edges, rowHeight, rowWindow, scrollFor } from "./table/window";

export type { TableSource } from "./table/usePages";

const headHeight = 46;
const maxDownload = 200_000;
const maxCopy = 1_000_000; // cells

interface Cell {
  row: number;
  column: number;
}

export interface DataTableProps {
  source: TableSource;
  /** Fill the place it is in, instead of a bounded height of its own. */
  fill?: boolean;
}

/** A data frame, a variable or a file as a table that pages itself from the server. */
export function DataTable({ source, fill }: DataTableProps) {
  const s = useStrings();
  const t = s.table;
  const [sheet, setSheet] = useState<string>();
  const [sort, setSort] = useState<Sort>();
  const wanted = source.kind === "file" && sheet !== undefined ? { ...source, sheet } : source;
  const pages = usePages(wanted, sort);
  const { shape } = pages;

  const runs = useMay("execute");
  if (!shape) {
    return pages.error ? (
      <Failure detail={pages.error.detail} hint={pages.error.hint} retry={() => setSort(sort && { ...sort })} />
    ) : (
      <Skeleton className="h-40 w-full" />
    );
  }
  const save = async () => {
    try {
      const rows = await pages.all(maxDownload);
      const head = [...(shape.labelled ? [""] : []), ...shape.columns.map((c) => c.name)];
      const body = rows.map((row) => [...(shape.labelled ? [plainCell(row.label)] : []), ...row.cells.map(plainCell)]);
      saveFile(toCSV([head, ...body]), "text/csv", "table.csv");
      if (rows.length >= maxDownload) toast.warning(t.tooLong(formatNumber(maxDownload)));
    } catch (err) {
      toast.failure(err);
    }
  };
  const columns = formatNumber(shape.total_columns);
  const counted = shape.total_rows >= 0;
  const total =
    source.kind === "frame" ? Math.max(shape.total_rows, Number(source.value.total_rows) || 0) : shape.total_rows;
  return (
    <div
      className={cx(
        "max-w-full overflow-hidden rounded-md border bg-raised",
        fill && "flex h-full flex-col rounded-none border-0",
      )}
    >
      {shape.sheets.length > 1 && (
        <div role="tablist" aria-label={t.sheets} className="flex gap-1 overflow-x-auto border-b px-2 py-1">
          {shape.sheets.map((name, i) => {
            const selected = sheet === undefined ? i === 0 : name === sheet;
            return (
              <button
                key={name}
                type="button"
                role="tab"
                aria-selected={selected}
                className="shrink-0 rounded-md px-2 py-0.5 text-muted text-xs hover:bg-hover aria-selected:bg-hover aria-selected:font-medium aria-selected:text-ink"
                onClick={() => {
                  setSort(undefined);
                  setSheet(name);
                }}
              >
                {name}
              </button>
            );
          })}
        </div>
      )}
      {shape.columns.length === 0 ? (
        <p className="px-3 py-2 text-muted text-sm">{shape.total_rows > 0 ? t.noColumns : t.empty}</p>
      ) : (
        <Grid key={sheet} pages={pages} sort={sort} onSort={setSort} fill={fill} />
      )}
      <div className="flex min-h-9 flex-wrap items-center gap-x-3 border-t px-3 py-0.5 text-muted text-xs">
        <span className="tabular-nums">
          {counted ? t.summary(formatNumber(total), columns) : t.columnsOnly(columns)}
        </span>
        {pages.gone && (
          <span className="min-w-0 flex-1">{(runs ? t.first : t.firstOnly)(formatNumber(shape.total_rows))}</span>
        )}
        {shape.columns.length < shape.total_columns && (
          <span>{t.shownColumns(formatNumber(shape.columns.length))}</span>
        )}
        <Button size="sm" variant="ghost" className="-mr-2 ml-auto text-muted" onClick={save}>
          <Download className="size-3.5" />
          {s.downloadCSV}
        </Button>
      </div>
      {pages.error && <Failure detail={pages.error.detail} hint={pages.error.hint} retry={pages.retry} />}
    </div>
  );
}

function Failure({ detail, hint, retry }: { detail: string; hint: string; retry: () => void }) {
  const s = useStrings();
  return (
    <div role="alert" className="flex items-center gap-3 border-t bg-danger-soft/50 px-3 py-2 text-sm">
      <p className="min-w-0 flex-1">
        {s.table.failed} {detail} <span className="text-muted">{hint}</span>
      </p>
      <Button size="sm" onClick={retry}>
        <RotateCw className="size-3.5" />
        {s.frame.retry}
      </Button>
    </div>
  );
}

interface GridProps {
  pages: ReturnType<typeof usePages>;
  sort: Sort | undefined;
  onSort: (sort: Sort | undefined) => void;
  fill: boolean | undefined;
}

function Grid({ pages, sort, onSort, fill }: GridProps) {
  const s = useStrings();
  const t = s.table;
  const id = useId();
  const shape = pages.shape as NonNullable<typeof pages.shape>;
  const { columns } = shape;
  const total = Math.max(0, shape.total_rows);
  const scroller = useRef<HTMLDivElement>(null);
  const [scroll, setScroll] = useState({ top: 0, left: 0 });
  const [size, setSize] = useState({ width: 800, height: 400 });
  const [resized, setResized] = useState<Record<number, number>>({});
  const [cursor, setCursor] = useState<Cell>();
  const [anchor, setAnchor] = useState<Cell>();

  useEffect(() => {
    const el = scroller.current;
    if (!el) return;
    const observer = new ResizeObserver(() => setSize({ width: el.clientWidth, height: el.clientHeight }));
    observer.observe(el);
    return () => observer.disconnect();
  }, []);

  // What the first rows need decides widths and decimals, once: columns must not move while one scrolls.
  const ready = pages.row(0) !== undefined;
  // biome-ignore lint/correctness/useExhaustiveDependencies: as above
  const measured = useMemo(() => {
    const sample: Row[] = [];
    for (let i = 0; i < Math.min(total, 60); i++) {
      const row = pages.row(i);
      if (row) sample.push(row);
    }
    const decimals = columns.map((_, c) => decimalsOf(sample.map((row) => row.cells[c])));
    const widths = columns.map((column, c) =>
      widthOf(
        column,
        sample.map((row) => formatCell(row.cells[c], column.dtype, decimals[c] ?? 0)),
      ),
    );
    const labels = shape.labelled ? sample.map((row) => plainCell(row.label)) : [String(Math.max(0, total - 1))];
    const index = widthOf({ name: "", dtype: "", nulls: null }, labels) - 8;
    return { decimals, widths, index: Math.max(48, Math.min(index, 240)) };
  }, [columns, ready, shape.labelled]);

  const widths = measured.widths.map((width, c) => resized[c] ?? width);
  const lefts = edges(widths);
  const totalWidth = measured.index + (lefts.at(-1) ?? 0);
  const view = Math.max(rowHeight, size.height - headHeight);
  const rows = rowWindow(total, scroll.top, view);
  const [firstColumn, lastColumn] = columnWindow(lefts, scroll.left, size.width - measured.index);
  const shownColumns = columns.map((_, c) => c).slice(firstColumn, lastColumn);
  const shownRows = Array.from({ length: rows.last - rows.first }, (_, i) => rows.first + i);

  useEffect(() => pages.want(rows.first, rows.last));

  const area = cursor && {
    top: Math.min(cursor.row, anchor?.row ?? cursor.row),
    bottom: Math.max(cursor.row, anchor?.row ?? cursor.row),
    left: Math.min(cursor.column, anchor?.column ?? cursor.column),
    right: Math.max(cursor.column, anchor?.column ?? cursor.column),
  };

  const move = (to: Cell, extend: boolean) => {
    const next = {
      row: Math.min(Math.max(0, to.row), total - 1),
      column: Math.min(Math.max(0, to.column), columns.length - 1),
    };
    if (next.row < 0) return;
    setAnchor(extend ? (anchor ?? cursor ?? next) : next);
    setCursor(next);
    const el = scroller.current;
    if (!el) return;
    const top = scrollFor(next.row, total, el.scrollTop, view);
    if (top !== undefined) el.scrollTop = top;
    const left = lefts[next.column] as number;
    const right = lefts[next.column + 1] as number;
    if (left < el.scrollLeft) el.scrollLeft = left;
    else if (right > el.scrollLeft + el.clientWidth - measured.index)
      el.scrollLeft = right - el.clientWidth + measured.index;
  };

  const copy = async () => {
    if (!area) return;
    const lines: string[][] = [];
    let cells = 0;
    for (let r = area.top; r <= area.bottom && cells < maxCopy; r++) {
      const row = pages.row(r);
      const line: string[] = [];
      for (let c = area.left; c <= area.right; c++) line.push(plainCell(row?.cells[c]));
      cells += line.length;
      lines.push(line);
    }
    await navigator.clipboard.writeText(toTSV(lines));
    toast.success(t.copied(formatNumber(cells)));
  };

  const toggle = (column: number) => {
    const name = columns[column]?.name ?? "";
    if (sort?.column !== column) onSort({ column, name, descending: false });
    else onSort(sort.descending ? undefined : { ...sort, descending: true });
    if (scroller.current) scroller.current.scrollTop = 0;
  };

  const onKey = (event: KeyboardEvent) => {
    const at = cursor ?? { row: rows.first, column: 0 };
    const page = Math.max(1, Math.floor(view / rowHeight) - 1);
    const far = event.ctrlKey || event.metaKey;
    const targets: Record<string, Cell> = {
      ArrowUp: { row: far ? 0 : at.row - 1, column: at.column },
      ArrowDown: { row: far ? total - 1 : at.row + 1, column: at.column },
      ArrowLeft: { row: at.row, column: far ? 0 : at.column - 1 },
      ArrowRight: { row: at.row, column: far ? columns.length - 1 : at.column + 1 },
      PageUp: { row: at.row - page, column: at.column },
      PageDown: { row: at.row + page, column: at.column },
      Home: { row: far ? 0 : at.row, column: 0 },
      End: { row: far ? total - 1 : at.row, column: columns.length - 1 },
    };
    const target = targets[event.key];
    if (target) move(cursor ? target : at, event.shiftKey);
    else if (far && event.key.toLowerCase() === "c") void copy();
    else if (far && event.key.toLowerCase() === "a") {
      setAnchor({ row: 0, column: 0 });
      setCursor({ row: total - 1, column: columns.length - 1 });
    } else if (event.key === "Enter" && cursor) toggle(cursor.column);
    else if (event.key === "Escape" && cursor) {
      setCursor(undefined);
      setAnchor(undefined);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };

  const select = (event: PointerEvent, cell: Cell) => {
    if (event.type === "pointerdown" && event.button !== 0) return;
    if (event.type === "pointerenter" && (event.buttons !== 1 || event.pointerType === "touch")) return;
    move(cell, event.shiftKey || event.type === "pointerenter");
  };

  const cellID = (cell: Cell) => `${id}-${cell.row}-${cell.column}`;
  const height = headHeight + Math.min(rows.height, 14 * rowHeight) + (totalWidth > size.width ? 12 : 0);
  return (
    <div
      ref={scroller}
      role="grid"
      aria-label={t.label}
      aria-description={t.keys}
      aria-rowcount={shape.total_rows < 0 ? -1 : total + 1}
      aria-colcount={columns.length + 1}
      aria-multiselectable="true"
      aria-activedescendant={cursor ? cellID(cursor) : undefined}
      tabIndex={0}
      className={cx(
        "relative overflow-auto overscroll-contain font-mono text-[0.8125rem] focus-visible:outline-offset-[-2px]",
        fill && "min-h-0 flex-1",
      )}
      style={fill ? undefined : { height }}
      onScroll={(event) => setScroll({ top: event.currentTarget.scrollTop, left: event.currentTarget.scrollLeft })}
      onKeyDown={onKey}
    >
      <div
        role="presentation"
        className="relative select-none"
        style={{ width: totalWidth, height: headHeight + rows.height }}
      >
        <div
          role="row"
          aria-rowindex={1}
          tabIndex={-1}
          className="sticky top-0 z-20 border-b bg-sunken"
          style={{ height: headHeight, width: totalWidth }}
        >
          <div
            role="columnheader"
            tabIndex={-1}
            className="sticky left-0 z-10 h-full border-r bg-sunken"
            style={{ width: measured.index }}
          >
            <span className="sr-only">{t.index}</span>
          </div>
          {shownColumns.map((c) => (
            <Head
              key={c}
              name={columns[c]?.name ?? ""}
              dtype={columns[c]?.dtype ?? ""}
              nulls={columns[c]?.nulls ?? null}
              index={c}
              left={measured.index + (lefts[c] ?? 0)}
              width={widths[c] ?? 0}
              sort={sort?.column === c ? (sort.descending ? "descending" : "ascending") : "none"}
              onSort={() => toggle(c)}
              onWidth={(width) => setResized({ ...resized, [c]: width })}
            />
          ))}
        </div>
        {shownRows.map((r) => {
          const row = pages.row(r);
          return (
            <div
              key={r}
              role="row"
              aria-rowindex={r + 2}
              tabIndex={-1}
              className="group/row absolute left-0 border-line/60 border-b"
              style={{ top: headHeight + rows.top(r), height: rowHeight, width: totalWidth }}
            >
              <div
                role="rowheader"
                tabIndex={-1}
                className="sticky left-0 z-10 h-full truncate border-r bg-sunken px-2 text-right text-muted leading-[1.7rem]"
                style={{ width: measured.index }}
              >
                {shape.labelled ? (row ? plainCell(row.label) : "") : r}
              </div>
              {shownColumns.map((c) => (
                <Value
                  key={c}
                  id={cellID({ row: r, column: c })}
                  value={row?.cells[c]}
                  coming={!row}
                  dtype={columns[c]?.dtype ?? ""}
                  decimals={measured.decimals[c] ?? 0}
                  index={c}
                  left={measured.index + (lefts[c] ?? 0)}
                  width={widths[c] ?? 0}
                  selected={
                    area !== undefined && r >= area.top && r <= area.bottom && c >= area.left && c <= area.right
                  }
                  current={cursor?.row === r && cursor.column === c}
                  onPointer={(event) => select(event, { row: r, column: c })}
                />
              ))}
            </div>
          );
        })}
      </div>
    </div>
  );
}

interface HeadProps {
  name: string;
  dtype: string;
  nulls: number | null;
  index: number;
  left: number;
  width: number;
  sort: "none" | "ascending" | "descending";
  onSort: () => void;
  onWidth: (width: number) => void;
}

function Head({ name, dtype, nulls, index, left, width, sort, onSort, onWidth }: HeadProps) {
  const t = useStrings().table;
  const start = useRef<{ x: number; width: number }>(undefined);
  const right = isNumeric(dtype);
  return (
    <div
      role="columnheader"
      aria-sort={sort}
      aria-colindex={index + 2}
      tabIndex={-1}
      className="absolute top-0 h-full"
      style={{ left, width }}
    >
      <button
        type="button"
        tabIndex={-1}
        className={cx("flex h-full w-full flex-col px-3 pt-[7px] hover:bg-hover", right ? "items-end" : "items-start")}
        aria-label={t.sortBy(name)}
        title={[name, dtype, nulls ? t.nulls(formatNumber(nulls)) : ""].filter((part) => part !== "").join(" · ")}
        onClick={onSort}
      >
        <span
          className={cx(
            "flex max-w-full items-center gap-1 font-sans font-semibold text-ink text-xs leading-4",
            right && "flex-row-reverse",
          )}
        >
          <span className="truncate">{name}</span>
          {sort === "ascending" && <ArrowUp className="size-3 shrink-0 text-accent" />}
          {sort === "descending" && <ArrowDown className="size-3 shrink-0 text-accent" />}
        </span>
      </button>
      {/* Beside the button: what a button shows has to be in its name. */}
      <span
        className={cx(
          "pointer-events-none absolute inset-x-0 bottom-[7px] truncate px-3 font-sans text-2xs text-muted",
          right && "text-right",
        )}
      >
        {dtype}
        {nulls ? ` · ${t.nulls(formatNumber(nulls))}` : ""}
      </span>
      <div
        aria-hidden
        title={t.resize(name)}
        className="absolute top-1 right-0 bottom-1 w-2 cursor-col-resize border-line border-r hover:border-accent hover:border-r-2"
        onPointerDown={(event) => {
          event.preventDefault();
          event.currentTarget.setPointerCapture(event.pointerId);
          start.current = { x: event.clientX, width };
        }}
        onPointerMove={(event) => {
          if (start.current)
            onWidth(Math.min(1200, Math.max(40, start.current.width + event.clientX - start.current.x)));
        }}
        onPointerUp={() => {
          start.current = undefined;
        }}
      />
    </div>
  );
}

interface ValueProps {
  id: string;
  value: Json | undefined;
  coming: boolean;
  dtype: string;
  decimals: number;
  index: number;
  left: number;
  width: number;
  selected: boolean;
  current: boolean;
  onPointer: (event: PointerEvent) => void;
}

function Value({ id, value, coming, dtype, decimals, index, left, width, selected, current, onPointer }: ValueProps) {
  const t = useStrings().table;
  const missing = !coming && (value === null || value === undefined);
  return (
    <div
      id={id}
      role="gridcell"
      aria-colindex={index + 2}
      aria-selected={selected}
      tabIndex={-1}
      title={typeof value === "string" && value.length * 7.4 > width - 24 ? value : undefined}
      className={cx(
        "absolute top-0 h-full truncate px-3 leading-[1.7rem] group-hover/row:bg-hover/50",
        isNumeric(dtype) && "text-right tabular-nums",
        selected && "bg-accent-soft group-hover/row:bg-accent-soft",
        current && "outline-2 outline-accent -outline-offset-2",
      )}
      style={{ left, width }}
      onPointerDown={onPointer}
      onPointerEnter={onPointer}
    >
      {coming ? (
        <span className="skeleton inline-block h-3 w-3/5 align-middle" />
      ) : missing ? (
        <span className="text-muted">
          <span aria-hidden>—</span>
          <span className="sr-only">{t.missing}</span>
        </span>
      ) : (
        formatCell(value, dtype, decimals)
      )}
    </div>
  );
}
