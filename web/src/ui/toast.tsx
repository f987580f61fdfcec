import "sonner/dist/styles.css";
import { Toaster as Sonner, toast as sonner } from "sonner";
import { ApiError } from "@/api/client";
import { useStrings } from "./strings";

/** Short words at the edge that go away by themselves. Failures say what to do. */
export const toast = {
  info: (text: string, detail?: string) => sonner(text, detail ? { description: detail } : {}),
  success: (text: string, detail?: string) => sonner.success(text, detail ? { description: detail } : {}),
  warning: (text: string, detail?: string) =>
    sonner.warning(text, { duration: 8000, ...(detail ? { description: detail } : {}) }),

  /** Takes all away. */
  clear: () => sonner.dismiss(),

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
      sonner.error(title ?? err.detail, { id: err.code, description: lines.join(" "), duration: 10_000 });
      return;
    }
    sonner.error(title ?? useStrings.now().failed, {
      description: err instanceof Error ? err.message : String(err),
      duration: 10_000,
    });
  },

  /** Something was removed, and can come back. */
  undo(text: string, undo: () => unknown) {
    sonner(text, { duration: 10_000, action: { label: useStrings.now().undo, onClick: () => void undo() } });
  },
};

export function Toaster() {
  return (
    <Sonner
      // Below the header: at the lower edge they would lie over the composer.
      position="top-center"
      offset={{ top: "3.5rem" }}
      mobileOffset={{ top: "3.5rem", left: "0.75rem", right: "0.75rem" }}
      style={{ fontFamily: "inherit" }}
      gap={8}
      toastOptions={{
        unstyled: true,
        classNames: {
          toast:
            "flex w-full items-start gap-2.5 rounded-lg border bg-raised px-3.5 py-2.5 text-ink text-sm shadow-pop [&_[data-icon]]:mt-0.5 [&_[data-icon]]:shrink-0",
          content: "min-w-0 flex-1 self-center",
          title: "font-medium",
          description: "mt-0.5 text-muted",
          actionButton: "shrink-0 self-center rounded-md px-2 py-1 font-medium text-accent hover:bg-hover",
          error: "[&_[data-icon]]:text-danger",
          warning: "[&_[data-icon]]:text-warning",
          success: "[&_[data-icon]]:text-success",
        },
      }}
    />
  );
}
