import { useEffect, useState } from "react";
import { call, sessionPath } from "@/api/client";
import type { Usage } from "@/api/types";

export interface Reading extends Usage {
  /** CPUs in use since the reading before; undefined for the first one. */
  cpus?: number;
}

const every = 2000;
const kept = 60;

/** What is known with one more reading. */
export function withReading(readings: readonly Reading[], usage: Usage): Reading[] {
  const last = readings.at(-1);
  const reading: Reading = { ...usage };
  if (last) {
    const nanos = (Date.parse(usage.at) - Date.parse(last.at)) * 1e6;
    if (nanos <= 0) return readings as Reading[]; // the same again
    // Less than before: it is another sandbox.
    if (usage.cpu_nanos >= last.cpu_nanos) reading.cpus = (usage.cpu_nanos - last.cpu_nanos) / nanos;
    else return [reading];
  }
  return [...readings, reading].slice(-kept);
}

/** Readings of the sandbox, the newest last, taken while active. */
export function useUsage(sessionId: string, sandboxId: string | undefined, active: boolean): Reading[] {
  const [state, setState] = useState<{ of: string; readings: Reading[] }>({ of: "", readings: [] });
  const of = `${sessionId}/${sandboxId ?? ""}`;
  useEffect(() => {
    if (!active || sessionId === "" || !sandboxId) return;
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const read = async () => {
      if (!document.hidden) {
        try {
          const usage = await call<Usage>("GET", sessionPath(sessionId, "usage"), { signal: abort.signal });
          setState((s) => ({ of, readings: withReading(s.of === of ? s.readings : [], usage) }));
        } catch {
          // The state says what is wrong; these are figures only.
        }
      }
      if (!abort.signal.aborted) timer = setTimeout(read, every);
    };
    void read();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [of, sessionId, sandboxId, active]);
  return state.of === of ? state.readings : [];
}
