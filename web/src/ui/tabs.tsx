import { Tabs as Radix } from "radix-ui";
import type { ReactNode } from "react";

export interface Tab<T extends string> {
  value: T;
  label: ReactNode;
  content: ReactNode;
}

export interface TabsProps<T extends string> {
  value: T;
  onChange: (value: T) => void;
  label: string;
  tabs: Tab<T>[];
  /** Stands at the end of the row of tabs. */
  aside?: ReactNode;
}

/** Tabs that fill their container; only the chosen one's content is there. */
export function Tabs<T extends string>({ value, onChange, label, tabs, aside }: TabsProps<T>) {
  return (
    <Radix.Root value={value} onValueChange={(v) => onChange(v as T)} className="flex h-full min-h-0 flex-col">
      <div className="flex h-12 shrink-0 items-center gap-1 border-b px-2">
        <Radix.List aria-label={label} className="flex min-w-0 flex-1 items-stretch self-stretch">
          {tabs.map((tab) => (
            <Radix.Trigger
              key={tab.value}
              value={tab.value}
              className="-mb-px border-transparent border-b-2 px-2.5 text-muted text-sm hover:text-ink focus-visible:outline-offset-[-3px] data-[state=active]:border-accent data-[state=active]:font-medium data-[state=active]:text-ink"
            >
              {tab.label}
            </Radix.Trigger>
          ))}
        </Radix.List>
        {aside}
      </div>
      {tabs.map((tab) => (
        <Radix.Content key={tab.value} value={tab.value} className="min-h-0 flex-1 overflow-auto outline-none">
          {tab.content}
        </Radix.Content>
      ))}
    </Radix.Root>
  );
}
