// What the server's answers to an upload mean.
import type { TransferProblem } from "./transfers";
import type { Answer } from "./transport";

export const retried = new Set([408, 425, 429, 500, 502, 503, 504]);
// The sandbox or the store said no for good; asking again changes nothing.
export const lasting = new Set(["disk-full", "session-full", "too-many-uploads", "too-many-sandboxes"]);

export function problemOf(answer: Answer): TransferProblem {
  try {
    const p = JSON.parse(answer.text) as { code?: string; detail?: string; title?: string; hint?: string };
    return {
      code: p.code ?? `http-${answer.status}`,
      detail: p.detail ?? p.title ?? `HTTP ${answer.status}`,
      hint: p.hint,
    };
  } catch {
    return { code: `http-${answer.status}`, detail: `HTTP ${answer.status}` };
  }
}

/** Bytes that the server has, from a Range ("bytes=0-99") or a plain offset. */
export function offsetOf(answer: Answer): number {
  const range = /^bytes[= ]0-(\d+)/.exec(answer.header("Range") ?? "");
  if (range) return Number(range[1]) + 1;
  return Number(answer.header("Upload-Offset") ?? 0) || 0;
}
