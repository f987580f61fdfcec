import { create } from "zustand";

/** What a file of the tree travels as, when it is dragged. */
export const carriedType = "application/x-caesarion-paths";

/** The paths that a drag brings, or null if it is none of the tree. */
export function carried(data: DataTransfer): string[] | null {
  if (!data.types.includes(carriedType)) return null;
  try {
    const paths: unknown = JSON.parse(data.getData(carriedType));
    return Array.isArray(paths) ? paths.filter((p) => typeof p === "string") : null;
  } catch {
    return null;
  }
}

interface DropTarget {
  /** The folder under the pointer; null: none in particular. */
  dir: string | null;
}

export const useDropTarget = create<DropTarget>(() => ({ dir: null }));

export function setDropTarget(dir: string | null): void {
  if (useDropTarget.getState().dir !== dir) useDropTarget.setState({ dir });
}
