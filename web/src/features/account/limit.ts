// A limit that is reached: which, how much is used, when there is more.
import type { ApiError, LimitReached } from "@/api/client";
import { language } from "@/lib/i18n";
import { withToasts } from "@/ui/toast";
import { useStrings } from "./strings";
import { amount } from "./usage";

/** The limit in the person's language: the server speaks English. */
export function limitText(limit: LimitReached, now = Date.now()): { title: string; detail: string } {
  const s = useStrings.now();
  const names = s.limits as Record<string, string>;
  const unit = limit.unit ?? "number";
  const parts = [s.limitUsed[limit.scope](amount(unit, limit.used), amount(unit, limit.most))];
  if (limit.frees_at) {
    const at = new Date(limit.frees_at);
    const seconds = Math.max(0, Math.ceil((at.getTime() - now) / 1000));
    const clock = at.toLocaleTimeString(language(), { timeStyle: seconds < 3600 ? "medium" : "short" });
    parts.push(seconds < 120 ? s.limitFreesIn(seconds, clock) : s.limitFrees(clock));
  }
  return { title: s.limitTitle(names[limit.limit] ?? limit.limit), detail: parts.join(" ") };
}

/** Says it, for as long as it may be useful; again: does once more what was refused. */
export function limitToast(err: ApiError, again?: () => unknown): void {
  if (!err.limit) return;
  const s = useStrings.now();
  const { title, detail } = limitText(err.limit);
  // What is freed by giving something back has a hint of how; times are said in the person's own clock.
  const hint = err.limit.frees_at ? "" : err.hint;
  const description = [detail, hint, again ? "" : s.limitKept].filter((text) => text !== "").join(" ");
  const action = again && { action: { label: s.again, onClick: () => void again() } };
  withToasts((toast) => toast.error(title, { id: err.code, description, duration: 30_000, ...action }));
}
