import type { Limits } from "@/api/types";
import { cx } from "@/lib/cx";
import { formatBytes, formatNumber } from "@/lib/format";
import { useStrings } from "./strings";
import type { Reading } from "./usage";

const full = 0.85;

/** Which of the limits is nearly reached; "" if none. */
export function tight(reading: Reading | undefined): "" | "memory" | "disk" {
  if (!reading) return "";
  if (reading.memory_limit_bytes > 0 && reading.memory_bytes / reading.memory_limit_bytes > full) return "memory";
  if (reading.disk_limit_bytes > 0 && reading.disk_bytes / reading.disk_limit_bytes > full) return "disk";
  return "";
}

function Sparkline({ values, most }: { values: number[]; most: number }) {
  const width = 64;
  const height = 16;
  const points = values
    .slice(-32)
    .map(
      (v, i, all) =>
        `${width - ((all.length - 1 - i) / 31) * width},${height - Math.min(1, most > 0 ? v / most : 0) * (height - 1) - 0.5}`,
    )
    .join(" ");
  return (
    <svg viewBox={`0 0 ${width} ${height}`} className="h-4 w-16 shrink-0" aria-hidden>
      <polyline points={points} fill="none" stroke="currentColor" strokeWidth="1.25" strokeLinejoin="round" />
    </svg>
  );
}

interface MeterProps {
  label: string;
  text: string;
  value: number;
  most: number;
  history?: number[];
}

function Meter({ label, text, value, most, history }: MeterProps) {
  const share = most > 0 ? Math.min(1, value / most) : 0;
  return (
    <div>
      <div className="flex items-end justify-between gap-2 text-xs">
        <span className="text-muted">{label}</span>
        <span className="flex items-center gap-2 tabular-nums">
          {history && history.length > 1 && (
            <span className="text-accent">
              <Sparkline values={history} most={most} />
            </span>
          )}
          {text}
        </span>
      </div>
      {/* biome-ignore lint/a11y/useSemanticElements: the platform's own meter can't be given our looks */}
      <div
        role="meter"
        aria-label={label}
        aria-valuetext={text}
        aria-valuenow={Math.round(share * 100)}
        aria-valuemin={0}
        aria-valuemax={100}
        className="mt-1 h-1.5 overflow-hidden rounded-full bg-hover"
      >
        <div
          className={cx(
            "h-full rounded-full transition-[width] duration-500",
            share > full ? "bg-warning" : "bg-accent",
          )}
          style={{ width: `${share * 100}%` }}
        />
      </div>
    </div>
  );
}

/** Memory, CPU and disk against their limits. */
export function Meters({ readings, limits }: { readings: Reading[]; limits: Limits | undefined }) {
  const s = useStrings();
  const now = readings.at(-1);
  const cpus = limits?.cpus ?? 1;
  const used = now?.cpus ?? 0;
  const memoryLimit = now?.memory_limit_bytes || limits?.memory_bytes || 0;
  const diskLimit = now?.disk_limit_bytes || limits?.disk_bytes || 0;
  const bytes = (value: number | undefined, limit: number) =>
    limit > 0
      ? s.of(value === undefined ? "…" : formatBytes(value), formatBytes(limit))
      : value === undefined
        ? "…"
        : formatBytes(value);
  return (
    <div className="flex flex-col gap-2.5">
      <Meter
        label={s.memory}
        text={bytes(now?.memory_bytes, memoryLimit)}
        value={now?.memory_bytes ?? 0}
        most={memoryLimit}
        history={readings.map((r) => r.memory_bytes)}
      />
      <Meter
        label={s.cpu}
        text={s.cpus(now?.cpus === undefined ? "…" : formatNumber(used, 2), formatNumber(cpus, 1))}
        value={used}
        most={cpus}
        history={readings.map((r) => r.cpus ?? 0)}
      />
      <Meter label={s.disk} text={bytes(now?.disk_bytes, diskLimit)} value={now?.disk_bytes ?? 0} most={diskLimit} />
      {now && (
        <p className="flex justify-between text-xs">
          <span className="text-muted">{s.processes}</span>
          <span className="tabular-nums">
            {limits?.processes ? s.of(String(now.processes), String(limits.processes)) : now.processes}
          </span>
        </p>
      )}
    </div>
  );
}
