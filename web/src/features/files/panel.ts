import { create } from "zustand";

interface Shown {
  /** Panels that show uploads; while there are none, the page has to. */
  count: number;
  /** The same for previews. */
  previews: number;
}

export const usePanel = create<Shown>(() => ({ count: 0, previews: 0 }));

/** To be called by a panel that is to be seen; gives what to call when it is gone. */
export function panelShown(previews = false): () => void {
  const add = (n: number) =>
    usePanel.setState((s) => ({ count: s.count + n, previews: s.previews + (previews ? n : 0) }));
  add(1);
  return () => add(-1);
}
