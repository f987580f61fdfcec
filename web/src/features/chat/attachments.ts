// Files on their way to the next message: everything that was dropped, pasted or
// picked since the last one. Uploads of the files panel are none of it.
import { useMemo, useState } from "react";
import { type Transfer, useTransfers } from "@/features/files/transfers";

/** Where there are transfers it is here already. */
const uploader = () => import("@/features/files/upload").then((m) => m.uploader);

// Transfers that went out with a message, or were taken off one.
const used = new Set<string>();

export interface Attachments {
  files: readonly Transfer[];
  /** Some have not arrived yet. */
  waiting: boolean;
  remove(id: string): void;
  /** Waits for all; their paths, or null if one did not arrive. */
  arrived(): Promise<string[] | null>;
  /** They went out. */
  clear(): void;
}

const dropped: ReadonlySet<Transfer["status"]> = new Set(["cancelled", "skipped", "interrupted"]);
const under: ReadonlySet<Transfer["status"]> = new Set([
  "queued",
  "checking",
  "sending",
  "retrying",
  "offline",
  "asking",
]);

export function useAttachments(sessionId: string): Attachments {
  const transfers = useTransfers(sessionId);
  const [version, setVersion] = useState(0);
  // biome-ignore lint/correctness/useExhaustiveDependencies: version counts changes of used
  return useMemo(() => {
    const files = transfers.filter(
      (t) => t.origin !== "panel" && t.origin !== "recalled" && !dropped.has(t.status) && !used.has(t.id),
    );
    return {
      files,
      waiting: files.some((t) => under.has(t.status)),
      remove(id) {
        used.add(id);
        const transfer = files.find((t) => t.id === id);
        if (transfer && under.has(transfer.status)) void uploader().then((u) => u.cancel(id));
        setVersion((v) => v + 1);
      },
      async arrived() {
        const paths = await Promise.all(
          files.map((t) => (t.status === "done" ? t.path : uploader().then((u) => u.done(t.id)))),
        );
        return paths.every((path) => path !== undefined) ? paths : null;
      },
      clear() {
        for (const t of files) used.add(t.id);
        setVersion((v) => v + 1);
      },
    };
  }, [transfers, version]);
}
