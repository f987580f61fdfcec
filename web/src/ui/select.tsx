import { ChevronDown } from "lucide-react";
import { cx } from "@/lib/cx";

export interface SelectProps<T extends string> {
  label: string;
  value: T;
  onChange: (value: T) => void;
  options: { value: T; label: string }[];
  className?: string;
}

/** The platform's own select: right on phones and for screen readers without effort. */
export function Select<T extends string>({ label, value, onChange, options, className }: SelectProps<T>) {
  return (
    <span className={cx("relative inline-flex", className)}>
      <select
        aria-label={label}
        value={value}
        onChange={(e) => onChange(e.target.value as T)}
        className="h-8 w-full appearance-none rounded-md border border-line-strong bg-raised pr-7 pl-2.5 text-ink text-sm hover:bg-hover"
      >
        {options.map((option) => (
          <option key={option.value} value={option.value}>
            {option.label}
          </option>
        ))}
      </select>
      <ChevronDown
        aria-hidden
        className="-translate-y-1/2 pointer-events-none absolute top-1/2 right-2 size-4 text-muted"
      />
    </span>
  );
}
