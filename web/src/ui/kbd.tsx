import { cx } from "@/lib/cx";

const mac = typeof navigator !== "undefined" && /Mac|iPhone|iPad/.test(navigator.platform);

const names: Record<string, string> = mac
  ? { Mod: "⌘", Ctrl: "⌃", Alt: "⌥", Shift: "⇧", Enter: "↩" }
  : { Mod: "Ctrl", Enter: "Enter" };

/** "Mod+Shift+K" as this machine's keyboard calls it. */
export function keyNames(keys: string): string[] {
  return keys.split("+").map((key) => names[key] ?? key);
}

export function Kbd({ keys, className }: { keys: string; className?: string }) {
  return (
    <kbd
      className={cx(
        "inline-flex h-[1.25rem] items-center rounded border border-line-strong bg-raised px-1 font-sans text-2xs text-muted",
        className,
      )}
    >
      {keyNames(keys).join(mac ? "" : "+")}
    </kbd>
  );
}
