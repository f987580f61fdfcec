// What is used, and of how much, for people.
import { useQuery } from "@tanstack/react-query";
import { ApiError, call } from "@/api/client";
import { formatBytes, formatDuration, formatNumber } from "@/lib/format";
import type { Allowance, LimitFigure, SubjectUsage } from "./types";

/** What one uses oneself; null: this server does not tell. */
export function useAllowance() {
  return useQuery({
    queryKey: ["usage"],
    queryFn: async ({ signal }) => {
      try {
        return await call<Allowance>("GET", "/v1/usage", { signal });
      } catch (err) {
        if (err instanceof ApiError && (err.status === 404 || err.status === 501)) return null;
        throw err;
      }
    },
    refetchInterval: 15_000,
  });
}

export function amount(unit: LimitFigure["unit"], value: number): string {
  if (unit === "bytes") return formatBytes(value);
  if (unit === "milliseconds") return value === 0 ? "0 s" : formatDuration(value);
  return formatNumber(value);
}

/** How full a limit is, from 0 to 1; undefined: there is none. */
export function share(figure: Pick<LimitFigure, "used" | "most">): number | undefined {
  if (figure.most === undefined) return undefined;
  return figure.most <= 0 ? 1 : Math.min(1, figure.used / figure.most);
}

export function level(figure: Pick<LimitFigure, "used" | "most">): "fine" | "tight" | "full" {
  const full = share(figure) ?? 0;
  return full >= 1 ? "full" : full >= 0.8 ? "tight" : "fine";
}

/** What there is to say: what is bounded, or used. */
export function telling(usage: SubjectUsage): LimitFigure[] {
  return (usage.limits ?? []).filter((figure) => figure.most !== undefined || figure.used > 0);
}

/** Organisations first, then who is nearest to a limit, then who uses most of something. */
export function inOrder(list: readonly SubjectUsage[]): SubjectUsage[] {
  const nearest = (usage: SubjectUsage) => Math.max(0, ...(usage.limits ?? []).map((figure) => share(figure) ?? 0));
  return [...list].sort(
    (a, b) =>
      Number(b.scope === "organisation") - Number(a.scope === "organisation") ||
      nearest(b) - nearest(a) ||
      telling(b).length - telling(a).length,
  );
}
