import { type KeyboardEvent, type PointerEvent, useRef } from "react";
import { cx } from "@/lib/cx";

export interface SplitterProps {
  label: string;
  /** Width in pixels of the area it changes. */
  value: number;
  min: number;
  max: number;
  onChange: (value: number) => void;
  /** The area is to the left of the splitter, or to its right. */
  side: "left" | "right";
  /** A double click or Enter: closes the area. */
  onCollapse?: () => void;
}

/** The line between two areas, by pointer and by arrow keys. */
export function Splitter({ label, value, min, max, onChange, side, onCollapse }: SplitterProps) {
  const start = useRef<{ x: number; value: number } | null>(null);
  const clamp = (v: number) => Math.round(Math.min(max, Math.max(min, v)));
  const sign = side === "left" ? 1 : -1;

  const down = (e: PointerEvent<HTMLDivElement>) => {
    if (e.button !== 0) return;
    e.currentTarget.setPointerCapture(e.pointerId);
    start.current = { x: e.clientX, value };
  };
  const move = (e: PointerEvent<HTMLDivElement>) => {
    if (start.current) onChange(clamp(start.current.value + sign * (e.clientX - start.current.x)));
  };
  const up = () => {
    start.current = null;
  };
  const key = (e: KeyboardEvent<HTMLDivElement>) => {
    const step = e.shiftKey ? 64 : 16;
    if (e.key === "ArrowLeft") onChange(clamp(value - sign * step));
    else if (e.key === "ArrowRight") onChange(clamp(value + sign * step));
    else if (e.key === "Home") onChange(min);
    else if (e.key === "End") onChange(max);
    else if (e.key === "Enter" && onCollapse) onCollapse();
    else return;
    e.preventDefault();
  };
  return (
    // biome-ignore lint/a11y/useSemanticElements: a separator that moves is this role with these values, hr has no keys
    <div
      role="separator"
      tabIndex={0}
      aria-label={label}
      aria-orientation="vertical"
      aria-valuenow={value}
      aria-valuemin={min}
      aria-valuemax={max}
      onPointerDown={down}
      onPointerMove={move}
      onPointerUp={up}
      onPointerCancel={up}
      onDoubleClick={onCollapse}
      onKeyDown={key}
      className={cx(
        "group relative z-10 w-px shrink-0 cursor-col-resize touch-none bg-line outline-none",
        "before:absolute before:inset-y-0 before:-left-1.5 before:w-3 before:content-['']",
        "after:-left-px after:absolute after:inset-y-0 after:w-[3px] after:bg-transparent after:transition-colors hover:after:bg-accent/50 focus-visible:after:bg-accent active:after:bg-accent",
      )}
    />
  );
}
