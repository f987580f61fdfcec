import { useSyncExternalStore } from "react";
import type { Theme } from "../../../../frame/protocol";

let current: Theme | undefined;
const listeners = new Set<() => void>();

/** The page's colours as they are now, as values that mean the same elsewhere. */
function read(): Theme {
  const probe = document.createElement("span");
  document.body.append(probe);
  const style = getComputedStyle(probe);
  const color = (name: string) => {
    probe.style.color = `var(--${name})`;
    return style.color;
  };
  const chosen = document.documentElement.dataset.theme;
  const theme: Theme = {
    dark: chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches),
    ink: color("ink"),
    muted: color("muted"),
    line: color("line"),
    surface: color("surface"),
    raised: color("raised"),
    accent: color("accent"),
    font: style.fontFamily,
    mono: "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace",
  };
  probe.remove();
  return theme;
}

function changed(): void {
  const next = read();
  if (JSON.stringify(next) === JSON.stringify(current)) return;
  current = next;
  for (const listener of listeners) listener();
}

let unwatch: (() => void) | undefined;

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  if (!unwatch) {
    const media = matchMedia("(prefers-color-scheme: dark)");
    const observer = new MutationObserver(changed);
    media.addEventListener("change", changed);
    observer.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme", "class"] });
    unwatch = () => {
      media.removeEventListener("change", changed);
      observer.disconnect();
    };
    changed();
  }
  return () => {
    listeners.delete(listener);
    if (listeners.size > 0) return;
    unwatch?.();
    unwatch = undefined;
  };
}

export function useTheme(): Theme {
  return useSyncExternalStore(subscribe, () => {
    current ??= read();
    return current;
  });
}
