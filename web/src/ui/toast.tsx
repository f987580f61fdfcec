import { lazy, Suspense, useSyncExternalStore } from "react";
import type { toast as Sonner } from "sonner";
import { ApiError } from "@/api/client";
import { useStrings } from "./strings";

// Nobody needs them for the first look at the page: they come with the first one.
const Toasts = lazy(() => import("./Toasts"));
let wanted = false;
const listeners = new Set<() => void>();
let ready = () => {};
const there = new Promise<void>((done) => {
  ready = done;
});

/** Does something with the toasts, once they are there. */
export function withToasts(work: (sonner: typeof Sonner) => void): void {
  wanted = true;
  for (const listener of listeners) listener();
  void Promise.all([import("sonner"), there]).then(([{ toast }]) => work(toast));
}

/** Short words at the edge that go away by themselves. Failures say what to do. */
export const toast = {
  info: (text: string, detail?: string) => withToasts((sonner) => sonner(text, detail ? { description: detail } : {})),
  success: (text: string, detail?: string) =>
    withToasts((sonner) => sonner.success(text, detail ? { description: detail } : {})),
  warning: (text: string, detail?: string) =>
    withToasts((sonner) => sonner.warning(text, { duration: 8000, ...(detail ? { description: detail } : {}) })),

  /** Takes all away. */
  clear: () => wanted && withToasts((sonner) => sonner.dismiss()),

  /** A failed call, in the server's words and with its hint. The same failure again replaces its toast. */
  failure(err: unknown, title?: string, again?: () => unknown) {
    if (err instanceof DOMException && err.name === "AbortError") return;
    if (err instanceof ApiError && err.limit) {
      void import("@/features/account/limit").then(({ limitToast }) => limitToast(err, again));
      return;
    }
    if (err instanceof ApiError) {
      if (err.status === 401) return; // the page asks for the token
      const lines = [title ? err.detail : "", err.hint].filter((line) => line !== "");
      withToasts((sonner) =>
        sonner.error(title ?? err.detail, { id: err.code, description: lines.join(" "), duration: 10_000 }),
      );
      return;
    }
    const description = err instanceof Error ? err.message : String(err);
    withToasts((sonner) => sonner.error(title ?? useStrings.now().failed, { description, duration: 10_000 }));
  },

  /** Something was removed, and can come back. */
  undo(text: string, undo: () => unknown) {
    const action = { label: useStrings.now().undo, onClick: () => void undo() };
    withToasts((sonner) => sonner(text, { duration: 10_000, action }));
  },
};

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function Toaster() {
  if (!useSyncExternalStore(subscribe, () => wanted)) return null;
  return (
    <Suspense fallback={null}>
      <Toasts ready={ready} />
    </Suspense>
  );
}
