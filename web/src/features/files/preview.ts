import { create } from "zustand";

interface PreviewState {
  /** The file of the open session that is looked at; null: none. */
  path: string | null;
}

export const usePreview = create<PreviewState>(() => ({ path: null }));

/** Shows a file. */
export function openPreview(path: string): void {
  usePreview.setState({ path });
}

export function closePreview(): void {
  usePreview.setState({ path: null });
}
