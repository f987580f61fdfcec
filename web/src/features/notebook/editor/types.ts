import type { Completions, Inspection } from "@/api/types";

/** What an editor of code asks of those around it. All parts may change while it lives. */
export interface EditorContext {
  onChange(code: string): void;
  /** A key that the notebook may take before the editor does. Returns whether it did. */
  onKey?(event: KeyboardEvent): boolean;
  /** The caret wants to leave over the first or last line. Returns whether it may. */
  onEdge?(direction: "up" | "down"): boolean;
  onFocus?(): void;
  onBlur?(): void;
  /** The kernel's help; absent: completion from the text's own words only. */
  complete?(code: string, cursor: number): Promise<Completions | null>;
  inspect?(code: string, cursor: number): Promise<Inspection | null>;
}

export interface EditorHandle {
  focus(at?: "start" | "end" | { x: number; y: number }): void;
  blur(): void;
  hasFocus(): boolean;
  insert(text: string): void;
}
