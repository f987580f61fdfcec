import { cx } from "@/lib/cx";
import { formatBytes } from "@/lib/format";
import { language } from "@/lib/i18n";
import { useStrings } from "./strings";
import type { LimitFigure, SubjectUsage } from "./types";
import { amount, level, share } from "./usage";

const bars = { fine: "bg-accent", tight: "bg-warning", full: "bg-danger" } as const;

/** What somebody uses, limit by limit. */
export function Figures({ usage, figures }: { usage: SubjectUsage; figures: LimitFigure[] }) {
  const s = useStrings();
  return (
    <div className="w-full">
      <ul className="grid gap-x-6 gap-y-3.5 sm:grid-cols-2 lg:grid-cols-3">
        {figures.map((figure) => (
          <Figure key={figure.limit} figure={figure} />
        ))}
      </ul>
      {(usage.upload_bytes !== undefined || (usage.upload_types ?? []).length > 0) && (
        <p className="mt-3 text-muted text-xs">
          {usage.upload_bytes !== undefined && s.uploadMost(formatBytes(usage.upload_bytes))}{" "}
          {(usage.upload_types ?? []).length > 0 && s.uploadTypes((usage.upload_types ?? []).join(", "))}
        </p>
      )}
    </div>
  );
}

function Figure({ figure }: { figure: LimitFigure }) {
  const s = useStrings();
  const known = Object.hasOwn(s.limits, figure.limit);
  const name = known ? s.limits[figure.limit as keyof typeof s.limits] : figure.limit;
  const full = share(figure);
  const used = amount(figure.unit, figure.used);
  const text = figure.most === undefined ? used : s.usedOf(used, amount(figure.unit, figure.most));
  const how = level(figure);
  return (
    <li>
      <p className="flex items-baseline justify-between gap-2 text-xs">
        <span className="text-muted">{name}</span>
        <span className={cx("whitespace-nowrap tabular-nums", how === "full" && "font-medium text-danger")}>
          {text}
        </span>
      </p>
      {full !== undefined && (
        // biome-ignore lint/a11y/useSemanticElements: the platform's own meter can't be given our looks
        <div
          role="meter"
          aria-label={name}
          aria-valuenow={Math.round(full * 100)}
          aria-valuemin={0}
          aria-valuemax={100}
          aria-valuetext={text}
          className="mt-1 h-1.5 overflow-hidden rounded-full bg-hover"
        >
          <div className={cx("h-full rounded-full", bars[how])} style={{ width: `${full * 100}%` }} />
        </div>
      )}
      {figure.frees_at && how !== "fine" && (
        <p className="mt-0.5 text-muted text-xs">
          {s.frees(new Date(figure.frees_at).toLocaleTimeString(language(), { timeStyle: "short" }))}
        </p>
      )}
    </li>
  );
}
