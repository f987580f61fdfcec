import { ChevronLeft, ChevronRight, Download, SquareCode } from "lucide-react";
import { type KeyboardEvent, useEffect, useMemo, useState } from "react";
import { useStore } from "zustand";
import { ApiError } from "@/api/client";
import { useActions, useSession } from "@/features/session";
import { formatAgo, formatBytes } from "@/lib/format";
import { Dialog, EmptyState, IconButton, Skeleton } from "@/ui";
import { contentUrl, download, type Entry, stat } from "./api";
import { insertText } from "./insert";
import { marksOf } from "./marks";
import { PreviewBody } from "./PreviewBody";
import { base, parent, pythonString, rowId } from "./paths";
import { closePreview, openPreview } from "./preview";
import { filesOf } from "./store";
import { useStrings } from "./strings";

/** Where arrow keys have a meaning of their own. */
const ownArrows =
  "input, textarea, select, audio, video, [role=grid], [role=table], [role=tree], [role=slider], [data-arrows]";

/** One file, large; with the others of its folder one key away. */
export default function PreviewDialog({ sessionId, path }: { sessionId: string; path: string }) {
  const s = useStrings();
  const actions = useActions();
  const files = useMemo(() => filesOf(sessionId), [sessionId]);
  const folder = useStore(files.store, (state) => state.folders.get(parent(path)));
  const version = useSession((state) => state.filesVersion);
  const items = useSession((state) => state.items);
  const order = useSession((state) => state.order);
  const [entry, setEntry] = useState<Entry | null>(null);
  const [problem, setProblem] = useState("");

  useEffect(() => {
    const mark = marksOf(order, items).get(path);
    if (mark) files.see([mark.key]);
  }, [files, order, items, path]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: version says when the file may have changed
  useEffect(() => {
    const abort = new AbortController();
    stat(sessionId, path, abort.signal)
      .then((found) => {
        setEntry((before) =>
          before?.path === found.path &&
          before.modified_at === found.modified_at &&
          before.size_bytes === found.size_bytes
            ? before
            : found,
        );
        setProblem("");
      })
      .catch((err: unknown) => {
        if (abort.signal.aborted) return;
        setProblem(
          err instanceof ApiError
            ? err.status === 404
              ? s.gone
              : [err.detail, err.hint].filter(Boolean).join(" ")
            : String(err),
        );
      });
    if (!files.store.getState().folders.has(parent(path))) void files.load(parent(path));
    return () => abort.abort();
  }, [sessionId, path, version, files, s]);

  const siblings = (folder?.entries ?? []).filter(
    (e) => e.type === "file" && (!e.name.startsWith(".") || e.path === path),
  );
  const at = siblings.findIndex((e) => e.path === path);
  const go = (by: number) => {
    const next = siblings[at + by];
    if (at < 0 || !next) return;
    files.select(next.path);
    openPreview(next.path);
  };
  const keyDown = (event: KeyboardEvent) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.target instanceof Element && event.target.closest(ownArrows)) return;
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    event.preventDefault();
    go(event.key === "ArrowLeft" ? -1 : 1);
  };
  const shown = entry?.path === path ? entry : null;
  const insert = () => {
    closePreview();
    const text = pythonString(path);
    // The dialog gives the focus back first.
    setTimeout(() => insertText(text) || void actions.addItem({ kind: "cell", code: text }), 50);
  };
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && closePreview()}
      title={base(path)}
      description={
        shown
          ? [formatBytes(shown.size_bytes), s.modified(formatAgo(shown.modified_at)), parent(path)].join(" · ")
          : parent(path)
      }
      size="full"
      returnTo={() => document.getElementById(rowId(path))} // the row of the file that was looked at last
    >
      {/* biome-ignore lint/a11y/noStaticElementInteractions: arrows go through the files wherever the focus is */}
      <div className="flex h-full min-h-0 flex-col" onKeyDown={keyDown}>
        <div className="flex shrink-0 items-center gap-1 pb-2">
          <IconButton size="sm" label={s.previous} keys="←" disabled={at <= 0} onClick={() => go(-1)}>
            <ChevronLeft />
          </IconButton>
          <IconButton
            size="sm"
            label={s.next}
            keys="→"
            disabled={at < 0 || at >= siblings.length - 1}
            onClick={() => go(1)}
          >
            <ChevronRight />
          </IconButton>
          {at >= 0 && (
            <span className="px-1 text-muted text-xs tabular-nums">
              {at + 1} / {siblings.length}
            </span>
          )}
          <span className="flex-1" />
          <IconButton size="sm" label={s.insert} onClick={insert}>
            <SquareCode />
          </IconButton>
          <IconButton
            size="sm"
            label={s.download}
            onClick={() => download(contentUrl(sessionId, shown ?? path), base(path))}
          >
            <Download />
          </IconButton>
        </div>
        <div className="min-h-0 flex-1 overflow-hidden rounded-lg border bg-surface">
          {problem !== "" ? (
            <EmptyState title={s.failedToRead}>{problem}</EmptyState>
          ) : shown ? (
            <PreviewBody key={`${shown.path}@${shown.modified_at}`} sessionId={sessionId} entry={shown} />
          ) : (
            <Skeleton className="m-4 h-40" />
          )}
        </div>
      </div>
    </Dialog>
  );
}
