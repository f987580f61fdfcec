import { useEffect, useRef, useState } from "react";
import { ApiError, call, sessionPath } from "@/api/client";
import type { VariableList } from "@/api/types";
import { useSession } from "@/features/session";

export interface VariablesState {
  list: VariableList | null;
  /** The kernel runs something: the list is that of before. */
  stale: boolean;
  problem: string;
}

const nothing: VariablesState = { list: null, stale: false, problem: "" };
const retryAfter = 1500;

/** The variables of the session's kernel, read again after each run. */
export function useVariables(): VariablesState & { live: boolean; retry: () => void } {
  const id = useSession((state) => state.id);
  const sandbox = useSession((state) => state.session?.sandbox);
  const runs = useSession((state) => state.runsVersion);
  const [again, setAgain] = useState(0);
  const [state, setState] = useState<VariablesState>(nothing);
  const live = id !== "" && (sandbox?.state === "ready" || sandbox?.state === "busy" || sandbox?.state === "paused");
  const busy = sandbox?.state === "busy";
  const paused = sandbox?.state === "paused"; // and not to be woken for this
  const kernel = `${id}/${sandbox?.id ?? ""}/${sandbox?.kernel_id ?? ""}`;
  const shown = useRef(kernel);

  // biome-ignore lint/correctness/useExhaustiveDependencies: kernel, runs, busy and again say when
  useEffect(() => {
    if (shown.current !== kernel || !live) {
      shown.current = kernel;
      setState(nothing); // another process has other variables
    }
    if (!live || paused) return;
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    call<VariableList>("GET", sessionPath(id, "variables"), { signal: abort.signal })
      .then((list) => setState({ list, stale: false, problem: "" }))
      .catch((err: unknown) => {
        if (abort.signal.aborted) return;
        if (err instanceof ApiError && err.code === "kernel-busy") {
          setState((before) => ({ ...before, stale: true, problem: "" }));
          if (!busy) timer = setTimeout(() => setAgain((n) => n + 1), retryAfter); // else the end of the run asks again
          return;
        }
        const problem = err instanceof ApiError ? [err.detail, err.hint].filter(Boolean).join(" ") : String(err);
        setState((before) => ({ ...before, stale: before.list !== null, problem }));
      });
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [kernel, live, paused, runs, busy, again]);

  return { ...state, live, retry: () => setAgain((n) => n + 1) };
}
