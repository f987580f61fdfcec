import { CheckCircle2, ChevronDown, CircleAlert, CircleHelp, CirclePause, RotateCcw, WifiOff, X } from "lucide-react";
import { useEffect, useMemo, useState } from "react";
import { cx } from "@/lib/cx";
import { formatBytes, formatDuration } from "@/lib/format";
import { Button, IconButton, Spinner } from "@/ui";
import { useStrings } from "./strings";
import { type Transfer, type TransferStatus, unfinished, useTransfers } from "./transfers";
import { uploader } from "./upload";

function StatusIcon({ status }: { status: TransferStatus }) {
  const look = "size-4 shrink-0";
  switch (status) {
    case "done":
      return <CheckCircle2 aria-hidden className={cx(look, "text-success")} />;
    case "asking":
      return <CircleHelp aria-hidden className={cx(look, "text-warning")} />;
    case "failed":
      return <CircleAlert aria-hidden className={cx(look, "text-danger")} />;
    case "offline":
      return <WifiOff aria-hidden className={cx(look, "text-warning")} />;
    case "sending":
    case "checking":
    case "retrying":
      return <Spinner className={cx(look, status === "retrying" ? "text-warning" : "text-accent")} />;
    default:
      return <CirclePause aria-hidden className={cx(look, "text-muted")} />;
  }
}

/** What is to be said of a transfer. */
export function useTransferText(): (t: Transfer) => string {
  const s = useStrings();
  return (t) => {
    switch (t.status) {
      case "queued":
        return s.queued;
      case "checking":
        return s.checking;
      case "sending": {
        const parts = [s.ofSize(formatBytes(t.sent), formatBytes(t.size))];
        if (t.rate > 0) {
          parts.push(`${formatBytes(t.rate)}/s`);
          const left = ((t.size - t.sent) / t.rate) * 1000;
          if (left > 2000) parts.push(s.left(formatDuration(left)));
        }
        return parts.join(" · ");
      }
      case "retrying":
        return s.retrying;
      case "offline":
        return s.offline;
      case "asking":
        return s.exists;
      case "failed":
        if (t.problem?.code === "file-unreadable") return s.unreadable;
        if (t.problem?.code === "connection-cut") return s.cut;
        return [t.problem?.detail, t.problem?.hint].filter(Boolean).join(" ") || s.failed;
      case "interrupted":
        return s.interrupted(t.size > 0 ? Math.floor((t.sent / t.size) * 100) : 0);
      case "done":
        return `${formatBytes(t.size)} · ${s.done}`;
      case "cancelled":
        return s.cancelled;
      case "skipped":
        return s.skipped;
    }
  };
}

function TransferLine({ t }: { t: Transfer }) {
  const s = useStrings();
  const text = useTransferText();
  const percent = t.size > 0 ? Math.min(100, (t.sent / t.size) * 100) : 0;
  const moving =
    t.status === "sending" || t.status === "retrying" || t.status === "offline" || t.status === "interrupted";
  const bad = t.status === "failed";
  return (
    <li className="px-3 py-1.5">
      <div className="flex items-center gap-2">
        <StatusIcon status={t.status} />
        <span className="min-w-0 flex-1">
          <span className="block truncate text-sm" title={t.path}>
            {t.name}
          </span>
          <span className={cx("block text-2xs tabular-nums", bad ? "text-danger" : "text-muted")}>{text(t)}</span>
        </span>
        {(t.status === "failed" || t.status === "cancelled") && (
          <IconButton size="sm" label={s.retry} onClick={() => uploader.retry(t.id)}>
            <RotateCcw />
          </IconButton>
        )}
        {(unfinished.has(t.status) || t.status === "interrupted") && (
          <IconButton
            size="sm"
            label={t.status === "interrupted" ? s.dismiss : s.cancel}
            onClick={() => uploader.cancel(t.id)}
          >
            <X />
          </IconButton>
        )}
      </div>
      {moving && (
        <div
          role="progressbar"
          aria-label={t.name}
          aria-valuenow={Math.round(percent)}
          aria-valuemin={0}
          aria-valuemax={100}
          className="mt-1 ml-6 h-1 overflow-hidden rounded-full bg-hover"
        >
          <div
            className={cx(
              "h-full rounded-full transition-[width]",
              t.status === "sending" ? "bg-accent" : "bg-warning",
            )}
            style={{ width: `${percent}%` }}
          />
        </div>
      )}
      {t.status === "asking" && (
        <div className="mt-1.5 ml-6 flex flex-wrap items-center gap-1.5">
          <Button size="sm" onClick={() => uploader.decide(t.id, "overwrite")}>
            {s.overwrite}
          </Button>
          <Button size="sm" onClick={() => uploader.decide(t.id, "keep-both")}>
            {s.keepBoth}
          </Button>
          <Button size="sm" variant="ghost" onClick={() => uploader.decide(t.id, "skip")}>
            {s.skip}
          </Button>
        </div>
      )}
    </li>
  );
}

// Lines that are drawn; a dropped folder may bring thousands.
const shown = 60;
const order: Record<TransferStatus, number> = {
  asking: 0,
  failed: 1,
  retrying: 2,
  offline: 2,
  sending: 3,
  checking: 3,
  queued: 4,
  interrupted: 5,
  cancelled: 6,
  skipped: 6,
  done: 7,
};

/** The uploads of a session; nothing when there are none. */
export function TransferList({ sessionId, className }: { sessionId: string; className?: string }) {
  const s = useStrings();
  const all = useTransfers(sessionId);
  const transfers = useMemo(() => all.filter((t) => !t.hidden), [all]);
  const [folded, setFolded] = useState(false);
  useEffect(() => {
    if (sessionId) uploader.recall(sessionId);
  }, [sessionId]);
  // What is done goes by itself; what a person must see stays.
  const settled = transfers.length > 0 && transfers.every((t) => ["done", "skipped", "cancelled"].includes(t.status));
  useEffect(() => {
    if (!settled) return;
    const timer = setTimeout(() => uploader.clear(sessionId), 6000);
    return () => clearTimeout(timer);
  }, [settled, sessionId]);
  if (transfers.length === 0) return null;

  const count = (...statuses: TransferStatus[]) => transfers.filter((t) => statuses.includes(t.status)).length;
  const asking = count("asking");
  const failed = count("failed");
  const going = count("queued", "checking", "sending", "retrying", "offline");
  const done = count("done");
  const title =
    asking > 0
      ? s.transfersAsk(asking)
      : going > 0
        ? s.transfersLeft(going)
        : failed > 0
          ? s.transfersFailed(failed)
          : done > 0
            ? s.transfersDone(done)
            : s.transfers;
  const total = transfers.reduce((sum, t) => sum + (unfinished.has(t.status) || t.status === "done" ? t.size : 0), 0);
  const sent = transfers.reduce(
    (sum, t) => sum + (t.status === "done" ? t.size : unfinished.has(t.status) ? t.sent : 0),
    0,
  );
  // One answer for all, where several of one drop ask.
  const several = transfers.find(
    (t) => t.status === "asking" && transfers.some((x) => x !== t && x.status === "asking" && x.batch === t.batch),
  );
  const lines = transfers.toSorted((a, b) => order[a.status] - order[b.status]).slice(0, shown);
  return (
    <section
      aria-label={s.transfers}
      className={cx("flex max-h-[45%] min-h-0 shrink-0 flex-col border-t bg-raised", className)}
    >
      <div className="flex h-9 shrink-0 items-center gap-1 pr-1.5 pl-1.5">
        <button
          type="button"
          aria-expanded={!folded}
          onClick={() => setFolded(!folded)}
          className="flex min-w-0 flex-1 items-center gap-1.5 rounded-md px-1.5 py-1 text-left font-medium text-xs hover:bg-hover"
        >
          <ChevronDown
            aria-hidden
            className={cx("size-4 shrink-0 text-muted transition-transform", folded && "-rotate-90")}
          />
          <span role="status" className="truncate">
            {title}
          </span>
          {going > 1 && total > 0 && (
            <span className="ml-auto text-muted tabular-nums">{Math.floor((sent / total) * 100)} %</span>
          )}
        </button>
        {going > 1 ? (
          <Button
            size="sm"
            variant="ghost"
            onClick={() => transfers.forEach((t) => void (unfinished.has(t.status) && uploader.cancel(t.id)))}
          >
            {s.cancelAll}
          </Button>
        ) : (
          going === 0 &&
          asking === 0 && (
            <Button size="sm" variant="ghost" onClick={() => uploader.clear(sessionId)}>
              {s.clear}
            </Button>
          )
        )}
      </div>
      {!folded && several && (
        <div className="flex shrink-0 flex-wrap items-center gap-1.5 border-b px-3 pb-2">
          <span className="mr-auto text-muted text-xs">{s.forAll(asking)}</span>
          <Button size="sm" onClick={() => uploader.decide(several.id, "overwrite", true)}>
            {s.overwriteAll}
          </Button>
          <Button size="sm" onClick={() => uploader.decide(several.id, "keep-both", true)}>
            {s.keepAll}
          </Button>
          <Button size="sm" variant="ghost" onClick={() => uploader.decide(several.id, "skip", true)}>
            {s.skipAll}
          </Button>
        </div>
      )}
      {!folded && (
        <ul className="min-h-0 overflow-auto pb-1.5">
          {lines.map((t) => (
            <TransferLine key={t.id} t={t} />
          ))}
          {transfers.length > shown && <li className="px-3 py-1 text-muted text-xs">+ {transfers.length - shown}</li>}
        </ul>
      )}
    </section>
  );
}
