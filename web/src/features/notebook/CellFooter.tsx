import {
  Check,
  CircleSlash,
  Clock,
  FileMinus,
  FilePen,
  FilePlus,
  PenLine,
  Sparkles,
  TriangleAlert,
  X,
} from "lucide-react";
import { type ReactNode, useEffect, useState } from "react";
import type { FileChange, Item } from "@/api/types";
import { openPreview } from "@/features/files/preview";
import { cx } from "@/lib/cx";
import { formatBytes, formatDuration } from "@/lib/format";
import { Tooltip } from "@/ui";
import { useStrings } from "./strings";

/** One line below the code that is always there: number, state, time, files. */
export function CellFooter({ item }: { item: Item }) {
  const s = useStrings();
  return (
    <div className="flex min-h-7 items-center gap-x-3 pr-2 pb-1 text-2xs text-muted sm:text-xs">
      <span className="flex w-10 shrink-0 justify-center font-mono text-2xs tabular-nums sm:w-11">
        {item.execution_count ? `[${item.execution_count}]` : ""}
      </span>
      <Status item={item} />
      {item.tool ? (
        <Tooltip text={s.byModel}>
          <span className="inline-flex">
            <Sparkles className="size-3 text-gold" aria-label={s.byModel} role="img" />
          </span>
        </Tooltip>
      ) : null}
      {item.edited ? (
        <Tooltip text={s.editedHint}>
          <span className="inline-flex items-center gap-1 text-warning">
            <PenLine className="size-3" aria-hidden />
            {s.edited}
          </span>
        </Tooltip>
      ) : null}
      {item.changes && item.changes.length > 0 ? <Changes changes={item.changes} /> : null}
    </div>
  );
}

const looks: Partial<Record<Item["status"], { icon: ReactNode; tone: string; say: boolean }>> = {
  writing: { icon: null, tone: "text-gold", say: true },
  queued: { icon: <Clock className="size-3" aria-hidden />, tone: "", say: true },
  ok: { icon: <Check className="size-3 text-success" aria-hidden />, tone: "", say: false },
  error: { icon: <X className="size-3" aria-hidden />, tone: "text-danger", say: false },
  interrupted: { icon: <CircleSlash className="size-3" aria-hidden />, tone: "text-warning", say: true },
  timeout: { icon: <Clock className="size-3" aria-hidden />, tone: "text-danger", say: true },
  killed: { icon: <TriangleAlert className="size-3" aria-hidden />, tone: "text-danger", say: true },
  aborted: { icon: <CircleSlash className="size-3" aria-hidden />, tone: "", say: false },
  stopped: { icon: <CircleSlash className="size-3" aria-hidden />, tone: "text-warning", say: false },
  cut: { icon: <TriangleAlert className="size-3" aria-hidden />, tone: "text-warning", say: true },
};

function Status({ item }: { item: Item }) {
  const s = useStrings();
  if (item.status === "running") return <Elapsed since={item.started_at} label={s.status.running} />;
  const look = looks[item.status];
  if (!look) return null;
  const said = s.status[item.status];
  return (
    <span className={cx("inline-flex shrink-0 items-center gap-1 tabular-nums", look.tone)}>
      {look.icon}
      <span className={look.say ? undefined : "sr-only"}>{said}</span>
      {item.duration_ms !== undefined && item.duration_ms > 0 ? <span>{formatDuration(item.duration_ms)}</span> : null}
    </span>
  );
}

/** Time since a run began; ticks by itself, so that nothing around it is drawn again. */
function Elapsed({ since, label }: { since: string | undefined; label: string }) {
  const [now, setNow] = useState(() => Date.now());
  const begun = since ? Date.parse(since) : now;
  const ms = Math.max(0, now - begun);
  const fast = ms < 10_000;
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), fast ? 100 : 1000);
    return () => clearInterval(timer);
  }, [fast]);
  return (
    <span className="inline-flex shrink-0 items-center gap-1 text-accent tabular-nums">
      <span className="sr-only">{label}</span>
      <span aria-hidden>{fast ? `${(ms / 1000).toFixed(1)} s` : formatDuration(ms)}</span>
    </span>
  );
}

const changeIcons = { created: FilePlus, modified: FilePen, deleted: FileMinus };

function Changes({ changes }: { changes: readonly FileChange[] }) {
  const s = useStrings();
  const [all, setAll] = useState(false);
  const shown = all ? changes : changes.slice(0, 3);
  return (
    <span className="ml-auto flex min-w-0 flex-wrap justify-end gap-1">
      {shown.map((change) => {
        const name = change.path.slice(change.path.lastIndexOf("/") + 1);
        const Icon = changeIcons[change.change];
        const size = change.size_bytes ? `, ${formatBytes(change.size_bytes)}` : "";
        return (
          <button
            key={change.path}
            type="button"
            disabled={change.change === "deleted"}
            title={`${change.path} (${s[change.change]}${size})`}
            aria-label={`${s.openFile(name)} (${s[change.change]})`}
            className="inline-flex h-6 max-w-44 items-center gap-1 rounded-md border border-line bg-surface px-1.5 hover:border-line-strong hover:text-ink disabled:line-through disabled:opacity-60"
            onClick={() => openPreview(change.path)}
          >
            <Icon className={cx("size-3 shrink-0", change.change === "created" && "text-success")} aria-hidden />
            <span className="truncate">{name}</span>
          </button>
        );
      })}
      {changes.length > shown.length ? (
        <button type="button" className="h-6 rounded-md px-1.5 hover:text-ink" onClick={() => setAll(true)}>
          {s.moreFiles(changes.length - shown.length)}
        </button>
      ) : null}
    </span>
  );
}
