import type { Item, ItemStatus } from "@/api/types";
import type { useStrings } from "./strings";

type Strings = ReturnType<typeof useStrings>;

/** Whether a cell runs or waits to. */
export function active(status: ItemStatus): boolean {
  return status === "running" || status === "queued";
}

/** What went wrong apart from the code's own exceptions, which are outputs. */
export function troubleOf(item: Item, s: Strings): { text: string; grave: boolean } | null {
  switch (item.status) {
    case "killed":
      return { text: item.message || s.killedText, grave: true };
    case "timeout":
      return { text: item.message || s.timeoutText, grave: true };
    case "aborted":
      return { text: item.message || s.abortedText, grave: false };
    case "cut":
      return { text: item.message || s.cutText, grave: false };
    case "stopped":
      return { text: item.message || s.stoppedText, grave: false };
    case "interrupted":
    case "error":
      // The traceback says it, unless there is none.
      return (item.outputs ?? []).some((o) => o.output_type === "error")
        ? null
        : item.message
          ? { text: item.message, grave: item.status === "error" }
          : null;
    default:
      return item.message && !active(item.status) ? { text: item.message, grave: false } : null;
  }
}
