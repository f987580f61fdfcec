import { CircleSlash, RotateCcw, StepForward, TriangleAlert } from "lucide-react";
import { useState } from "react";
import type { Item, TurnStatus as Status } from "@/api/types";
import { useMay } from "@/features/account/me";
import { useActions, useSession } from "@/features/session";
import { cx } from "@/lib/cx";
import { useSettled } from "@/lib/hooks";
import { useLanguage } from "@/lib/i18n";
import { Button } from "@/ui";
import { useStrings } from "./strings";

interface End {
  status: Status;
  message: string;
}

// How the newest answer ended, from the turn while it is known, else from what
// the items say: after a reload only those are left.
function useEnd(): End | null {
  // The turn of another branch is none of this one's.
  const turn = useSession((state) => (state.items.has(state.lastTurn?.message_id ?? "") ? state.lastTurn : null));
  const running = useSession((state) => state.session?.turn !== undefined);
  const last = useSession((state) => lastOfModel(state.order, state.items));
  const unanswered = useSession((state) => {
    const id = state.order.at(-1);
    return id !== undefined && state.items.get(id)?.kind === "user" && (state.session?.queue.length ?? 0) === 0;
  });
  // Between a message and the beginning of its answer lies a moment.
  const silent = useSettled(unanswered, 1500) && unanswered;
  if (running) return null;
  if (turn)
    return turn.status === "ok" || turn.status === "running"
      ? null
      : { status: turn.status, message: turn.message ?? "" };
  if (last && last.kind !== "cell" && (last.status === "stopped" || last.status === "error" || last.status === "cut")) {
    if (last.kind === "tool" && last.status === "error") return null;
    return { status: last.status, message: last.message ?? "" };
  }
  return silent ? { status: "cut", message: "" } : null;
}

function lastOfModel(order: readonly string[], items: ReadonlyMap<string, Item>): Item | null {
  for (let i = order.length - 1; i >= 0; i--) {
    const item = items.get(order[i] ?? "");
    if (item?.kind === "user") return null;
    if (item?.turn_id) return item;
  }
  return null;
}

/** Says how an answer ended if it did not end well, and what to do. */
export function TurnStatus() {
  const s = useStrings();
  const actions = useActions();
  const language = useLanguage();
  const [busy, setBusy] = useState(false);
  const end = useEnd();
  const runs = useMay("execute");
  if (!end) return null;
  const failed = end.status === "error";
  const words: Partial<Record<Status, string>> = {
    stopped: s.turn.stopped,
    error: s.turn.failed,
    limit: s.turn.limit,
    cut: s.turn.cut,
  };
  // The server speaks English; what the page can say itself, it says in the person's language.
  const text = (language === "en" || failed ? end.message : "") || words[end.status];
  const go = async () => {
    setBusy(true);
    await actions.continueTurn();
    setBusy(false);
  };
  if (end.status === "stopped") {
    return (
      <p className="flex min-h-8 items-center gap-2 text-muted text-sm">
        <CircleSlash className="size-4 shrink-0" aria-hidden />
        {s.turn.stopped}
        {runs && (
          <Button size="sm" variant="ghost" busy={busy} onClick={() => void go()}>
            {s.turn.goOn}
          </Button>
        )}
      </p>
    );
  }
  return (
    <div
      role={failed ? "alert" : undefined}
      className={cx(
        "mt-1 flex flex-wrap items-center gap-x-3 gap-y-2 rounded-xl px-4 py-3 text-sm",
        failed ? "bg-danger-soft text-danger" : "bg-warning-soft text-warning",
      )}
    >
      <TriangleAlert className="size-4 shrink-0" aria-hidden />
      <div className="min-w-0 flex-1 basis-60">
        {failed && end.message ? <p className="font-medium">{s.turn.failed}</p> : null}
        <p>{text}</p>
      </div>
      <Button size="sm" busy={busy} hidden={!runs} onClick={() => void go()}>
        {failed ? <RotateCcw className="size-3.5" aria-hidden /> : <StepForward className="size-3.5" aria-hidden />}
        {failed ? s.turn.retry : s.turn.goOn}
      </Button>
    </div>
  );
}

/** Three dots while the model is at work and nothing else moves. */
export function Working() {
  const s = useStrings();
  const running = useSession((state) => state.session?.turn !== undefined);
  const quiet = useSession((state) => {
    const item = state.items.get(state.order.at(-1) ?? "");
    if (!item || item.kind === "user") return true;
    return (
      !["writing", "running", "queued"].includes(item.status) ||
      (item.kind === "assistant" && !item.text && !item.reasoning)
    );
  });
  if (!running) return null;
  return (
    <div className="flex h-8 items-center gap-1" role="img" aria-label={s.turn.working}>
      {quiet
        ? [0, 1, 2].map((i) => (
            <span
              key={i}
              className={cx(
                "size-1.5 animate-pulse rounded-full bg-muted",
                i === 1 && "[animation-delay:200ms]",
                i === 2 && "[animation-delay:400ms]",
              )}
            />
          ))
        : null}
    </div>
  );
}
