import { useEffect, useRef, useState } from "react";
import { ApiError, call, sessionPath } from "@/api/client";
import type { VariableList } from "@/api/types";
import { useMay } from "@/features/account/me";
import { useSession } from "@/features/session";
import { sleeps } from "./status";

export interface VariablesState {
  list: VariableList | null;
  /** The kernel runs something: the list is that of before. */
  stale: boolean;
  problem: string;
}

const nothing: VariablesState = { list: null, stale: false, problem: "" };
const retryAfter = 1500;
/** What comes within this time of each other is one reason to read. */
const settle = 60;
/** A list is called old only when a run takes longer: a flicker tells nobody anything. */
const staleAfter = 500;

/** The variables of the session's kernel, read again after each run. */
export function useVariables(): VariablesState & { live: boolean; asleep: boolean; retry: () => void } {
  const id = useSession((state) => state.id);
  const sandbox = useSession((state) => state.session?.sandbox);
  const runs = useSession((state) => state.runsVersion);
  const [again, setAgain] = useState(0);
  const [state, setState] = useState<VariablesState>(nothing);
  const busy = sandbox?.state === "busy";
  const asleep = sandbox !== undefined && sleeps(sandbox.state); // and not to be woken for this
  const allowed = useMay("execute"); // reading them runs their code
  const live = id !== "" && (sandbox?.state === "ready" || busy || asleep);
  const kernel = `${id}/${sandbox?.id ?? ""}/${sandbox?.kernel_id ?? ""}`;
  const shown = useRef({ kernel: "", sandbox: "", runs: -1, again: 0 });

  // The sandbox is told of anew whenever its kernel got busy, ready or was
  // restarted; the end of a run and what follows come together, and are one reason.
  // biome-ignore lint/correctness/useExhaustiveDependencies: sandbox says when
  useEffect(() => {
    const before = shown.current;
    const other = before.kernel !== kernel;
    // Another process has other variables; one that sleeps has those it had.
    if (!live || (asleep ? before.sandbox !== sandbox.id : other)) setState(nothing);
    if (!live || asleep || !allowed) return;
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout>;
    if (busy && !other && before.runs === runs && before.again === again) {
      timer = setTimeout(() => setState((now) => (now.list ? { ...now, stale: true } : now)), staleAfter);
      return () => clearTimeout(timer);
    }
    const read = async () => {
      shown.current = { kernel, sandbox: sandbox?.id ?? "", runs, again };
      try {
        const list = await call<VariableList>("GET", sessionPath(id, "variables"), { signal: abort.signal });
        setState({ list, stale: false, problem: "" });
      } catch (err) {
        if (abort.signal.aborted) return;
        if (err instanceof ApiError && err.code === "kernel-busy") {
          setState((now) => ({ ...now, stale: true, problem: "" }));
          if (!busy) timer = setTimeout(() => setAgain((n) => n + 1), retryAfter); // else the end of the run asks again
          return;
        }
        const problem = err instanceof ApiError ? [err.detail, err.hint].filter(Boolean).join(" ") : String(err);
        setState((now) => ({ ...now, stale: now.list !== null, problem }));
      }
    };
    timer = setTimeout(read, settle);
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [sandbox, kernel, live, asleep, allowed, runs, again]);

  return { ...state, live, asleep, retry: () => setAgain((n) => n + 1) };
}
