import { create } from "zustand";

interface PreviewState {
  /** The file of the open session that is looked at; null: none. */
  path: string | null;
  /** What had the focus before. */
  opener: Element | null;
}

export const usePreview = create<PreviewState>(() => ({ path: null, opener: null }));

/** Shows a file. */
export function openPreview(path: string): void {
  usePreview.setState({ path, opener: document.activeElement });
}

export function closePreview(): void {
  usePreview.setState({ path: null });
}
