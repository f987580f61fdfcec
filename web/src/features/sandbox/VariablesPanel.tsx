import { Moon, Search, SquareCode, Table2, Variable as VariableGlyph } from "lucide-react";
import { type KeyboardEvent, lazy, Suspense, useEffect, useRef, useState } from "react";
import type { Variable } from "@/api/types";
import { useMay } from "@/features/account/me";
import { insertText } from "@/features/files/insert";
import { panelShown } from "@/features/files/panel";
import { TransferList } from "@/features/files/TransferList";
import { useActions, useSession } from "@/features/session";
import { cx } from "@/lib/cx";
import { formatBytes } from "@/lib/format";
import { Button, Dialog, EmptyState, IconButton, Skeleton } from "@/ui";
import { useStrings } from "./strings";
import { useVariables } from "./variables";

const DataTable = lazy(() => import("@/features/output/Table").then((m) => ({ default: m.DataTable })));

/** The names that the person's code defined; below them uploads, which would else lie over the page. */
export function VariablesPanel() {
  const id = useSession((state) => state.id);
  useEffect(() => panelShown(), []);
  return (
    <div className="flex h-full min-h-0 flex-col">
      <div className="min-h-0 flex-1">
        <Variables />
      </div>
      <TransferList sessionId={id} />
    </div>
  );
}

function Variables() {
  const s = useStrings();
  const actions = useActions();
  const id = useSession((state) => state.id);
  const { list, stale, problem, live, asleep, retry } = useVariables();
  const runs = useMay("execute");
  const wake = () => void actions.wakeSandbox();
  const [filter, setFilter] = useState("");
  const [table, setTable] = useState<Variable | null>(null);
  const rows = useRef<HTMLUListElement>(null);

  if (!live) {
    return (
      <EmptyState icon={<VariableGlyph />} title={s.noKernel}>
        {s.noKernelText}
      </EmptyState>
    );
  }
  if (!runs) {
    return (
      <EmptyState icon={<VariableGlyph />} title={s.notYours}>
        {s.notYoursText}
      </EmptyState>
    );
  }
  if (asleep && !list) {
    return (
      <EmptyState icon={<Moon />} title={s.asleep} action={<Button onClick={wake}>{s.wake}</Button>}>
        {s.asleepText}
      </EmptyState>
    );
  }
  if (problem !== "" && !list) {
    return (
      <EmptyState icon={<VariableGlyph />} title={s.unreadable} action={<Button onClick={retry}>{s.again}</Button>}>
        {problem}
      </EmptyState>
    );
  }
  if (!list) {
    return stale ? (
      <p className="p-4 text-muted text-sm">{s.stale}</p>
    ) : (
      <div className="flex flex-col gap-2 p-3">
        <Skeleton className="h-8" />
        <Skeleton className="h-8" />
        <Skeleton className="h-8" />
      </div>
    );
  }
  if (list.variables.length === 0) {
    return (
      <EmptyState icon={<VariableGlyph />} title={s.noVariables}>
        {s.noVariablesText}
      </EmptyState>
    );
  }

  const wanted = filter.trim().toLowerCase();
  const shown = list.variables.filter(
    (v) => v.name.toLowerCase().includes(wanted) || v.type.toLowerCase().includes(wanted),
  );
  const insert = (name: string) => {
    if (!insertText(name)) void actions.addItem({ kind: "cell", code: name });
  };
  // Arrows go from one variable to the next, so that Tab needs not pass them all.
  const keyDown = (event: KeyboardEvent) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp" && event.key !== "Home" && event.key !== "End") return;
    const all = [...(rows.current?.querySelectorAll<HTMLElement>("[data-variable]") ?? [])];
    const at = all.indexOf(document.activeElement?.closest("li")?.querySelector("[data-variable]") as HTMLElement);
    const to =
      event.key === "Home" ? 0 : event.key === "End" ? all.length - 1 : at + (event.key === "ArrowDown" ? 1 : -1);
    const next = all[Math.max(0, Math.min(all.length - 1, to))];
    if (!next) return;
    event.preventDefault();
    event.stopPropagation();
    next.focus();
  };

  return (
    <div className="flex h-full min-h-0 flex-col">
      <div className="flex h-11 shrink-0 items-center border-b px-2">
        <div className="relative min-w-0 flex-1">
          <Search aria-hidden className="-translate-y-1/2 absolute top-1/2 left-2 size-3.5 text-muted" />
          <input
            type="search"
            value={filter}
            onChange={(e) => setFilter(e.target.value)}
            placeholder={s.filter}
            aria-label={s.filter}
            className="h-8 w-full rounded-md border border-transparent bg-sunken pr-2 pl-7 text-sm outline-none focus:border-accent"
          />
        </div>
      </div>
      {asleep && (
        <div className="flex shrink-0 items-center justify-between gap-2 border-b bg-sunken py-1 pr-2 pl-3">
          <p role="status" className="text-muted text-xs">
            {s.asleepList}
          </p>
          <Button size="sm" onClick={wake}>
            {s.wake}
          </Button>
        </div>
      )}
      {!asleep && (stale || list.truncated) && (
        <p role="status" className="shrink-0 border-b bg-sunken px-3 py-1.5 text-muted text-xs">
          {stale ? s.stale : s.truncated}
        </p>
      )}
      {shown.length === 0 ? (
        <p className="px-4 py-6 text-center text-muted text-sm">{s.noMatch}</p>
      ) : (
        <ul
          ref={rows}
          aria-label={s.variables}
          onKeyDown={keyDown}
          className={cx("min-h-0 flex-1 overflow-auto p-1.5", stale && !asleep && "opacity-55")}
        >
          {shown.map((v, i) => (
            <Row
              key={v.name}
              variable={v}
              first={i === 0}
              onTable={() => setTable(v)}
              onInsert={() => insert(v.name)}
            />
          ))}
        </ul>
      )}
      <Dialog
        open={table !== null}
        onOpenChange={(open) => !open && setTable(null)}
        title={table?.name ?? ""}
        description={table ? [table.type, table.shape].filter(Boolean).join(" · ") : ""}
        size="full"
      >
        {table && (
          <Suspense fallback={<Skeleton className="h-40" />}>
            <DataTable fill source={{ kind: "variable", sessionId: id, name: table.name }} />
          </Suspense>
        )}
      </Dialog>
    </div>
  );
}

interface RowProps {
  variable: Variable;
  first: boolean;
  onTable: () => void;
  onInsert: () => void;
}

function Row({ variable: v, first, onTable, onInsert }: RowProps) {
  const s = useStrings();
  const facts = [v.type, v.shape, v.size_bytes ? formatBytes(v.size_bytes) : ""].filter(Boolean).join(" · ");
  return (
    <li className="group/var flex items-center rounded-md hover:bg-hover focus-within:bg-hover">
      <button
        type="button"
        data-variable={v.name}
        tabIndex={first ? 0 : -1}
        onClick={v.table ? onTable : onInsert}
        title={`${v.table ? s.openTable(v.name) : s.insert(v.name)}\n${v.preview}`}
        className="min-w-0 flex-1 rounded-md px-2 py-1.5 text-left focus-visible:outline-offset-[-2px]"
      >
        <span className="flex items-baseline gap-2">
          <span className="truncate font-medium font-mono text-[0.8125rem]">{v.name}</span>
          <span className="ml-auto shrink-0 text-2xs text-muted tabular-nums">{facts}</span>
        </span>
        <span className="block truncate font-mono text-muted text-xs">{v.preview}</span>
      </button>
      {v.table && (
        <IconButton size="sm" tabIndex={-1} label={s.openTable(v.name)} onClick={onTable} className="text-accent">
          <Table2 />
        </IconButton>
      )}
      <IconButton
        size="sm"
        tabIndex={-1}
        label={s.insert(v.name)}
        onClick={onInsert}
        className="opacity-0 focus-visible:opacity-100 group-focus-within/var:opacity-100 group-hover/var:opacity-100 pointer-coarse:opacity-100"
      >
        <SquareCode />
      </IconButton>
    </li>
  );
}
