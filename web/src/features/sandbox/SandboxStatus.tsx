import { AlarmClock, CircleStop, Moon, Play, RotateCcw, Sparkles } from "lucide-react";
import { Popover } from "radix-ui";
import { useEffect, useState } from "react";
import { useMay } from "@/features/account/me";
import { useActions, useHost, useSession } from "@/features/session";
import { cx } from "@/lib/cx";
import { language } from "@/lib/i18n";
import { Button, ConfirmDialog, Spinner, Tooltip, toast } from "@/ui";
import { useAsleep } from "./asleep";
import { Meters, tight } from "./Meters";
import { asleep, explanation, label, type Shown, shownState, sleeps } from "./status";
import { useStrings } from "./strings";
import { useUsage } from "./usage";

const dots: Record<Shown, string> = {
  none: "bg-line-strong",
  starting: "bg-warning",
  ready: "bg-success",
  busy: "bg-accent",
  pausing: "bg-line-strong",
  paused: "bg-line-strong",
  resuming: "bg-warning",
  lost: "bg-danger",
  failed: "bg-danger",
  unknown: "bg-line-strong",
};

/** Seconds since the state began to be so, counted while it is asked for. */
function useSeconds(active: boolean): number {
  const [seconds, setSeconds] = useState(0);
  useEffect(() => {
    setSeconds(0);
    if (!active) return;
    const began = Date.now();
    const timer = setInterval(() => setSeconds(Math.floor((Date.now() - began) / 1000)), 1000);
    return () => clearInterval(timer);
  }, [active]);
  return seconds;
}

function clock(time: string): string {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString(language(), today ? { timeStyle: "short" } : { dateStyle: "short", timeStyle: "short" });
}

/** What the sandbox is doing, in the header; on a click figures and what can be done. */
export function SandboxStatus() {
  const s = useStrings();
  const id = useSession((state) => state.id);
  const sandbox = useSession((state) => state.session?.sandbox);
  const connection = useSession((state) => state.connection);
  const actions = useActions();
  const may = useMay("execute");
  const [open, setOpen] = useState(false);
  const [confirm, setConfirm] = useState<"restart" | "fresh" | null>(null);
  const state = shownState(sandbox, id === "" ? "open" : connection);
  const coming = state === "starting" || state === "resuming";
  const seconds = useSeconds(coming);
  const awake = state === "ready" || state === "busy";
  const host = useHost(open);
  const canSleep = host?.capabilities.can?.includes("pause") ?? true; // else the server says so
  const told = useAsleep(sandbox?.id, state === "paused");
  const readings = useUsage(id, sandbox?.id, (open && state === "ready") || state === "busy");
  const full = tight(readings.at(-1));
  const since = told?.paused_at ? clock(told.paused_at) : "";
  const text = label(s, state, seconds, since);

  const act = (what: "restart" | "fresh") => {
    setOpen(false);
    setConfirm(what);
  };
  return (
    <>
      <Popover.Root open={open} onOpenChange={setOpen}>
        <Popover.Trigger asChild>
          <button
            type="button"
            aria-label={`${s.sandbox}: ${text}`}
            className="inline-flex h-8 shrink-0 items-center gap-1.5 rounded-full border px-2.5 text-xs hover:bg-hover data-[state=open]:bg-hover"
          >
            {coming || state === "pausing" ? (
              <Spinner className={cx("size-3", coming ? "text-warning" : "text-muted")} />
            ) : state === "paused" ? (
              <Moon aria-hidden className="size-3 text-muted" />
            ) : (
              <span
                aria-hidden
                className={cx("size-2 rounded-full", dots[state], state === "busy" && "animate-pulse")}
              />
            )}
            <span
              className={cx(
                "tabular-nums max-sm:sr-only",
                (state === "lost" || state === "failed" || full !== "") && "font-medium",
              )}
            >
              {text}
            </span>
            {full !== "" && (
              <span className="text-warning" title={s.almostFull(s[full])}>
                {s[full]}
              </span>
            )}
          </button>
        </Popover.Trigger>
        <Popover.Portal>
          <Popover.Content
            align="end"
            sideOffset={6}
            collisionPadding={8}
            aria-label={s.sandbox}
            className="appear z-40 flex w-80 max-w-[calc(100vw-1rem)] flex-col gap-3 rounded-xl border bg-raised p-4 shadow-pop outline-none"
          >
            <div>
              <p className="flex items-baseline justify-between gap-2">
                <span className="flex items-center gap-2 font-medium text-sm">
                  {state === "paused" ? (
                    <Moon aria-hidden className="size-3.5 shrink-0 text-muted" />
                  ) : (
                    <span aria-hidden className={cx("size-2 shrink-0 rounded-full", dots[state])} />
                  )}
                  {state === "paused" ? asleep(s, since, told?.saved_bytes) : text}
                </span>
                {awake && sandbox?.started_at && (
                  <span className="text-muted text-xs">{s.startedAt(clock(sandbox.started_at))}</span>
                )}
              </p>
              <p className={cx("mt-1 text-xs", state === "lost" || state === "failed" ? "text-danger" : "text-muted")}>
                {explanation(s, state, sandbox, seconds)}
              </p>
              {state === "unknown" && sandbox && sandbox.state !== "none" && (
                <p className="mt-1 text-muted text-xs">{s.lastKnown(label(s, sandbox.state, 0))}</p>
              )}
            </div>
            {awake && <Meters readings={readings} limits={sandbox?.limits} />}
            {awake && sandbox?.expires_at && (
              <p className="text-muted text-xs">{s.expires(clock(sandbox.expires_at))}</p>
            )}
            <div className="flex flex-wrap gap-1.5" hidden={!may}>
              {state === "busy" && (
                <Button size="sm" onClick={() => void actions.interrupt()}>
                  <CircleStop aria-hidden className="size-3.5" />
                  {s.interrupt}
                </Button>
              )}
              {state === "ready" && canSleep && (
                <Tooltip text={s.sleepHint} side="top">
                  <Button size="sm" onClick={() => void actions.pauseSandbox()}>
                    <Moon aria-hidden className="size-3.5" />
                    {s.sleep}
                  </Button>
                </Tooltip>
              )}
              {state === "paused" && (
                <Tooltip text={s.sleepHint} side="top">
                  <Button size="sm" variant="primary" onClick={() => void actions.wakeSandbox()}>
                    <AlarmClock aria-hidden className="size-3.5" />
                    {s.wake}
                  </Button>
                </Tooltip>
              )}
              {awake && (
                <Button size="sm" onClick={() => act("restart")}>
                  <RotateCcw aria-hidden className="size-3.5" />
                  {s.restart}
                </Button>
              )}
              {(awake || sleeps(state)) && (
                <Button size="sm" onClick={() => act("fresh")}>
                  <Sparkles aria-hidden className="size-3.5" />
                  {s.fresh}
                </Button>
              )}
              {(state === "none" || state === "failed") && (
                <Button size="sm" onClick={() => void actions.ensureSandbox()}>
                  <Play aria-hidden className="size-3.5" />
                  {s.start}
                </Button>
              )}
              {state === "lost" && (
                <Button size="sm" variant="primary" onClick={() => void actions.resetSandbox()}>
                  <Sparkles aria-hidden className="size-3.5" />
                  {s.fresh}
                </Button>
              )}
            </div>
          </Popover.Content>
        </Popover.Portal>
      </Popover.Root>
      <ConfirmDialog
        open={confirm === "restart"}
        onOpenChange={(shown) => !shown && setConfirm(null)}
        title={s.restartTitle}
        description={s.restartText}
        confirm={s.restart}
        danger
        onConfirm={async () => {
          if (await actions.restartKernel()) toast.success(s.restarted);
        }}
      />
      <ConfirmDialog
        open={confirm === "fresh"}
        onOpenChange={(shown) => !shown && setConfirm(null)}
        title={s.freshTitle}
        description={s.freshText}
        confirm={s.fresh}
        danger
        onConfirm={() => void actions.resetSandbox()}
      />
    </>
  );
}
