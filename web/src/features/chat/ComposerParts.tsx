import { Clock, FileText, TriangleAlert, X } from "lucide-react";
import type { Transfer } from "@/features/files/transfers";
import { useActions, useSession } from "@/features/session";
import { cx } from "@/lib/cx";
import type { Attachments } from "./attachments";
import { useStrings } from "./strings";

const remove =
  "inline-flex size-6 shrink-0 items-center justify-center rounded-md text-muted hover:bg-hover hover:text-ink [&>svg]:size-3.5";

/** Messages that wait for the answer before them. */
export function Queue() {
  const s = useStrings();
  const actions = useActions();
  const queue = useSession((state) => state.session?.queue);
  if (!queue || queue.length === 0) return null;
  return (
    <ul className="mb-1.5 flex flex-col gap-1" aria-label={s.composer.queued}>
      {queue.map((message) => (
        <li key={message.id} className="flex h-8 items-center gap-2 rounded-lg border bg-sunken pr-1 pl-2.5 text-sm">
          <Clock className="size-3.5 shrink-0 text-muted" aria-hidden />
          <span className="text-muted text-xs">{s.composer.queued}</span>
          <span className="min-w-0 flex-1 truncate">{message.text || message.files?.join(", ")}</span>
          <button
            type="button"
            className={remove}
            aria-label={s.composer.unqueue}
            title={s.composer.unqueue}
            onClick={() => void actions.unqueue(message.id)}
          >
            <X aria-hidden />
          </button>
        </li>
      ))}
    </ul>
  );
}

/** The files that go with the message, and how far they are. */
export function AttachedFiles({ attached }: { attached: Attachments }) {
  if (attached.files.length === 0) return null;
  return (
    <ul className="flex max-h-28 flex-wrap gap-1.5 overflow-y-auto px-3 pt-3">
      {attached.files.map((file) => (
        <Chip key={file.id} file={file} onRemove={() => attached.remove(file.id)} />
      ))}
    </ul>
  );
}

function Chip({ file, onRemove }: { file: Transfer; onRemove: () => void }) {
  const s = useStrings();
  const failed = file.status === "failed";
  const done = file.status === "done";
  const part = file.size > 0 ? Math.min(1, file.sent / file.size) : done ? 1 : 0;
  return (
    <li
      title={failed ? file.problem?.detail : file.path}
      className={cx(
        "relative flex h-8 max-w-60 items-center gap-1.5 overflow-hidden rounded-lg border pr-1 pl-2 text-sm",
        failed ? "border-danger/40 bg-danger-soft text-danger" : "bg-surface",
      )}
    >
      {failed ? (
        <TriangleAlert className="size-4 shrink-0" role="img" aria-label={s.composer.uploadFailed(file.name)} />
      ) : (
        <FileText className={cx("size-4 shrink-0", done ? "text-accent" : "text-muted")} aria-hidden />
      )}
      <span className="min-w-0 truncate">{file.name}</span>
      <button type="button" className={remove} aria-label={s.composer.removeFile(file.name)} onClick={onRemove}>
        <X aria-hidden />
      </button>
      {done || failed ? null : (
        <span
          role="progressbar"
          aria-label={file.name}
          aria-valuenow={Math.round(part * 100)}
          className="absolute bottom-0 left-0 h-0.5 w-full origin-left bg-accent transition-transform"
          style={{ transform: `scaleX(${part})` }}
        />
      )}
    </li>
  );
}
