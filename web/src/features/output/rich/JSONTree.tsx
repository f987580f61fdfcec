import { ChevronRight, Copy } from "lucide-react";
import { useMemo, useState } from "react";
import type { Json } from "@/api/types";
import { cx } from "@/lib/cx";
import { formatNumber } from "@/lib/format";
import { IconButton, toast } from "@/ui";
import { useStrings } from "../strings";

type Branch = Json[] | { [key: string]: Json };

/** How many entries a level shows at first, and how many more with each step. */
export const step = 100;

// Strings beyond this are shown in part until somebody asks.
const maxText = 400;

function isBranch(value: Json): value is Branch {
  return typeof value === "object" && value !== null;
}

export function entriesOf(value: Branch): [string, Json][] {
  return Array.isArray(value) ? value.map((v, i) => [String(i), v]) : Object.entries(value);
}

/** What a closed branch says of itself: its first entries, on one line. */
export function summary(value: Branch): string {
  const entries = entriesOf(value);
  const parts: string[] = [];
  let length = 0;
  for (const [key, v] of entries) {
    const text = isBranch(v)
      ? Array.isArray(v)
        ? "[…]"
        : "{…}"
      : (JSON.stringify(typeof v === "string" && v.length > 24 ? `${v.slice(0, 24)}…` : v) ?? "");
    const part = Array.isArray(value) ? text : `${key}: ${text}`;
    length += part.length;
    if (length > 70) {
      parts.push("…");
      break;
    }
    parts.push(part);
  }
  return Array.isArray(value) ? `[${parts.join(", ")}]` : `{${parts.join(", ")}}`;
}

/** The levels that are open at first: those that together fit on a screen. */
export function openDepth(value: Json): number {
  let depth = 0;
  let level: Json[] = [value];
  let rows = 0;
  while (depth < 4) {
    const next = level
      .filter(isBranch)
      .flatMap((branch) => (entriesOf(branch).length > 60 ? [] : entriesOf(branch).map(([, v]) => v)));
    rows += next.length;
    if (next.length === 0 || rows > 40) break;
    depth++;
    level = next;
  }
  return Math.max(1, depth);
}

function Leaf({ value }: { value: Json }) {
  const s = useStrings();
  const [whole, setWhole] = useState(false);
  if (typeof value === "string") {
    const cut = !whole && value.length > maxText;
    return (
      <span className="whitespace-pre-wrap text-success [overflow-wrap:anywhere]">
        {JSON.stringify(cut ? value.slice(0, maxText) : value)}
        {cut && (
          <button
            type="button"
            className="ml-1 rounded bg-hover px-1.5 text-muted text-xs hover:text-ink"
            onClick={() => setWhole(true)}
          >
            {s.restOfLine(formatNumber(value.length - maxText))}
          </button>
        )}
      </span>
    );
  }
  const className = typeof value === "number" ? "text-accent" : value === null ? "text-muted" : "text-warning";
  return <span className={className}>{String(value)}</span>;
}

function Node({
  name,
  value,
  open: openLevels,
  index,
}: {
  name: string | undefined;
  value: Json;
  open: number;
  index: boolean;
}) {
  const s = useStrings();
  // What is long stays closed, except for the whole.
  const [open, setOpen] = useState(
    openLevels > 0 && (name === undefined || !isBranch(value) || entriesOf(value).length <= 60),
  );
  const [shown, setShown] = useState(step);
  const label = name !== undefined && (
    <span className={index ? "text-muted" : "text-ink"}>{index ? name : JSON.stringify(name)}: </span>
  );
  if (!isBranch(value)) {
    return (
      <div className="pl-4.5">
        {label}
        <Leaf value={value} />
      </div>
    );
  }
  const entries = entriesOf(value);
  const rest = entries.length - shown;
  return (
    <div>
      <button
        type="button"
        aria-expanded={open}
        className="flex max-w-full items-start rounded text-left hover:bg-hover"
        onClick={() => setOpen(!open)}
      >
        <ChevronRight
          className={cx("mt-0.75 mr-1 size-3.5 shrink-0 text-muted transition-transform", open && "rotate-90")}
          aria-hidden
        />
        <span className="min-w-0 [overflow-wrap:anywhere]">
          {label}
          <span className="text-muted">
            {open
              ? (Array.isArray(value) ? "[" : "{") +
                (entries.length > 5 ? ` ${s.items(formatNumber(entries.length))}` : "")
              : summary(value)}
          </span>
        </span>
      </button>
      {open && (
        <div className="ml-1.75 border-l pl-2.5">
          {entries.slice(0, shown).map(([key, v]) => (
            <Node key={key} name={key} value={v} open={openLevels - 1} index={Array.isArray(value)} />
          ))}
          {rest > 0 && (
            <button
              type="button"
              className="ml-4.5 rounded bg-hover px-1.5 text-muted text-xs hover:text-ink"
              onClick={() => setShown(shown * 4)}
            >
              {s.more(formatNumber(Math.min(rest, shown * 3)))}
            </button>
          )}
        </div>
      )}
    </div>
  );
}

/** JSON as a tree. What is closed is not made. */
export function JSONTree({ value }: { value: Json }) {
  const s = useStrings();
  const depth = useMemo(() => openDepth(value), [value]);
  const copy = async () => {
    await navigator.clipboard.writeText(JSON.stringify(value, null, 2));
    toast.success(s.copied);
  };
  return (
    <div className="group/json relative rounded-md border bg-raised py-2 pr-10 pl-3 font-mono text-[0.8125rem] leading-5">
      <div className="max-h-120 overflow-auto">
        <Node name={undefined} value={value} open={depth} index={false} />
      </div>
      <div className="absolute top-1 right-1">
        <IconButton size="sm" label={s.copy} onClick={copy}>
          <Copy />
        </IconButton>
      </div>
    </div>
  );
}
