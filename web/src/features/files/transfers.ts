import { create } from "zustand";

/** What went wrong, as the server said it or as the browser did. */
export interface TransferProblem {
  code: string;
  detail: string;
  hint?: string;
}

/**
 * queued → checking → sending → done. A cut connection makes it retrying, no
 * network offline; asking waits for a person (the target exists); interrupted
 * was cut by a reload and goes on when the same file is given again.
 */
export type TransferStatus =
  | "queued"
  | "checking"
  | "sending"
  | "retrying"
  | "offline"
  | "asking"
  | "failed"
  | "done"
  | "cancelled"
  | "skipped"
  | "interrupted";

/** Where it came from: dropped on the page, pasted, chosen in the panel, given by another part of the page, or noted before a reload. */
export type Origin = "drop" | "paste" | "panel" | "program" | "recalled";

export interface Transfer {
  id: string;
  sessionId: string;
  /** All that came in one drop; an answer can be for all of them. */
  batch: string;
  origin: Origin;
  name: string;
  /** Where it goes. */
  path: string;
  size: number;
  sent: number;
  /** Bytes a second, lately. */
  rate: number;
  status: TransferStatus;
  /** Done and no longer listed. */
  hidden?: boolean;
  problem?: TransferProblem;
}

export const unfinished: ReadonlySet<TransferStatus> = new Set([
  "queued",
  "checking",
  "sending",
  "retrying",
  "offline",
  "asking",
]);

interface TransferState {
  transfers: Transfer[];
}

export const useTransferStore = create<TransferState>(() => ({ transfers: [] }));

export function getTransfer(id: string): Transfer | undefined {
  return useTransferStore.getState().transfers.find((t) => t.id === id);
}

export function addTransfers(more: Transfer[]): void {
  useTransferStore.setState((s) => ({ transfers: [...s.transfers, ...more] }));
}

export function patchTransfer(id: string, patch: Partial<Transfer>): void {
  useTransferStore.setState((s) => ({
    transfers: s.transfers.map((t) => (t.id === id ? { ...t, ...patch } : t)),
  }));
}

export function dropTransfers(gone: (t: Transfer) => boolean): void {
  useTransferStore.setState((s) => ({ transfers: s.transfers.filter((t) => !gone(t)) }));
}

const none: Transfer[] = [];
const bySession = new WeakMap<Transfer[], Map<string, Transfer[]>>();

/** The transfers of a session, oldest first. */
export function useTransfers(sessionId: string): Transfer[] {
  return useTransferStore((s) => {
    if (s.transfers.length === 0) return none;
    let cached = bySession.get(s.transfers);
    if (!cached) {
      cached = new Map();
      bySession.set(s.transfers, cached);
    }
    let mine = cached.get(sessionId);
    if (!mine) {
      mine = s.transfers.filter((t) => t.sessionId === sessionId);
      cached.set(sessionId, mine);
    }
    return mine;
  });
}
