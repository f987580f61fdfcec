import { createContext } from "react";

/** Makes a cell of quoted Python and runs it; null where that makes no sense. */
export const RunCode = createContext<((code: string) => void) | null>(null);
