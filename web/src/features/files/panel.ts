import { create } from "zustand";

/** Whether the files panel is to be seen: then it shows uploads, else the page has to. */
export const usePanel = create<{ count: number }>(() => ({ count: 0 }));

export function panelShown(): () => void {
  usePanel.setState((s) => ({ count: s.count + 1 }));
  return () => usePanel.setState((s) => ({ count: s.count - 1 }));
}
