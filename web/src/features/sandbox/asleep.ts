import { useEffect, useState } from "react";
import { call } from "@/api/client";
import type { SleepingSandbox } from "@/api/types";

/** Since when a sandbox sleeps and what that takes on disk. Asking does not wake it. */
export function useAsleep(id: string | undefined, paused: boolean): SleepingSandbox | undefined {
  const [known, setKnown] = useState<{ of: string; told: SleepingSandbox }>();
  useEffect(() => {
    if (!paused || !id) {
      setKnown(undefined);
      return;
    }
    const abort = new AbortController();
    call<SleepingSandbox>("GET", `/v1/sandboxes/${encodeURIComponent(id)}`, { signal: abort.signal })
      .then((told) => setKnown({ of: id, told }))
      .catch(() => {}); // these are figures only; the state says that it sleeps
    return () => abort.abort();
  }, [id, paused]);
  return paused && known?.of === id ? known?.told : undefined;
}
