import { Tooltip as Radix } from "radix-ui";
import type { ReactNode } from "react";
import { Kbd } from "./kbd";

export const TooltipProvider = Radix.Provider;

export interface TooltipProps {
  text: string;
  keys?: string | undefined;
  side?: "top" | "right" | "bottom" | "left";
  /** One element that can hold a ref. */
  children: ReactNode;
}

/** A short text beside what the pointer or the focus is on. Never the only place that says it. */
export function Tooltip({ text, keys, side = "bottom", children }: TooltipProps) {
  return (
    <Radix.Root>
      <Radix.Trigger asChild>{children}</Radix.Trigger>
      <Radix.Portal>
        <Radix.Content
          side={side}
          sideOffset={6}
          collisionPadding={8}
          className="appear z-50 flex max-w-72 items-center gap-2 rounded-md bg-ink px-2 py-1 text-surface text-xs shadow-pop"
        >
          {text}
          {keys && <Kbd keys={keys} className="border-surface/30 bg-transparent text-surface/80" />}
        </Radix.Content>
      </Radix.Portal>
    </Radix.Root>
  );
}
