import {
  Download,
  Eye,
  EyeOff,
  FolderPlus,
  FolderUp,
  Info,
  MoreHorizontal,
  RefreshCw,
  Search,
  Trash2,
  Upload,
  X,
} from "lucide-react";
import { useEffect, useMemo, useRef, useState } from "react";
import { useStore } from "zustand";
import { useMay } from "@/features/account/me";
import { sleeps } from "@/features/sandbox/status";
import { useActions, useSession } from "@/features/session";
import { Button, EmptyState, IconButton, Menu, MenuItem, toast } from "@/ui";
import { addFiles } from "./add";
import { archiveUrl, contentUrl, download } from "./api";
import { FileTree } from "./FileTree";
import { showItem } from "./goto";
import { insertText } from "./insert";
import { marksOf, unseen } from "./marks";
import { PreviewHost } from "./PreviewHost";
import { panelShown } from "./panel";
import { base, parent, uploadDir } from "./paths";
import { type Files, filesOf } from "./store";
import { useStrings } from "./strings";
import { TransferList } from "./TransferList";
import { roots } from "./tree";

/** Files of the session: tree, uploads, preview. */
export function FilesPanel() {
  const id = useSession((state) => state.id);
  const files = useMemo(() => filesOf(id), [id]);
  return id === "" ? <NoSession /> : <Panel key={id} files={files} />;
}

function NoSession() {
  const input = useUploadInput();
  return (
    <div className="flex h-full flex-col">
      <Nothing onUpload={() => input.choose(uploadDir)} />
      {input.element}
    </div>
  );
}

function Nothing({ onUpload }: { onUpload: () => void }) {
  const s = useStrings();
  if (!useMay("write")) {
    return (
      <EmptyState icon={<Eye />} title={s.noFiles}>
        {s.readOnlyText}
      </EmptyState>
    );
  }
  return (
    <EmptyState
      icon={<Upload />}
      title={s.emptyTitle}
      action={
        <Button onClick={onUpload}>
          <Upload aria-hidden className="size-4" />
          {s.uploadFiles}
        </Button>
      }
    >
      {s.emptyText}
    </EmptyState>
  );
}

/** Hidden inputs that open the browser's own choice of files or of a folder. */
function useUploadInput() {
  const actions = useActions();
  const s = useStrings();
  const fileInput = useRef<HTMLInputElement>(null);
  const folderInput = useRef<HTMLInputElement>(null);
  const dir = useRef(uploadDir);
  const take = (input: HTMLInputElement) => {
    const chosen = [...(input.files ?? [])];
    input.value = ""; // the same file again is a change too
    if (chosen.length > 0) void addFiles(actions, chosen, dir.current, "panel");
  };
  return {
    choose(to: string, folder = false) {
      dir.current = to;
      (folder ? folderInput : fileInput).current?.click();
    },
    element: (
      <>
        <input
          ref={fileInput}
          type="file"
          multiple
          hidden
          aria-label={s.uploadFiles}
          onChange={(e) => take(e.currentTarget)}
        />
        <input
          ref={folderInput}
          type="file"
          hidden
          aria-label={s.uploadFolder}
          {...{ webkitdirectory: "" }}
          onChange={(e) => take(e.currentTarget)}
        />
      </>
    ),
  };
}

function Panel({ files }: { files: Files }) {
  const s = useStrings();
  const actions = useActions();
  const state = useStore(files.store);
  const items = useSession((x) => x.items);
  const order = useSession((x) => x.order);
  const version = useSession((x) => x.filesVersion);
  const sandbox = useSession((x) => x.session?.sandbox.state ?? "none");
  const live = sandbox === "ready" || sandbox === "busy" || sleeps(sandbox);
  const input = useUploadInput();
  const changes = useMay("write");
  const [text, setText] = useState("");
  const marks = useMemo(() => unseen(marksOf(order, items), state.seen), [order, items, state.seen]);

  useEffect(() => panelShown(true), []);

  // Files change in bursts; the last of one is what counts. A sandbox that
  // comes or goes changes what is listed too.
  // biome-ignore lint/correctness/useExhaustiveDependencies: these say when, not what
  useEffect(() => {
    const first = files.store.getState().folders.size === 0;
    const timer = setTimeout(() => void files.refresh(), first ? 0 : 200);
    return () => clearTimeout(timer);
  }, [files, version, live]);

  useEffect(() => {
    const timer = setTimeout(() => void files.search(text), text === "" ? 0 : 150);
    return () => clearTimeout(timer);
  }, [files, text]);

  const insert = (path: string) => {
    if (!insertText(path)) void actions.addItem({ kind: "cell", code: path });
  };
  const ready = roots.every((r) => state.folders.get(r)?.status !== undefined);
  const nothing =
    ready &&
    roots.every((r) => state.folders.get(r)?.status === "ready" && state.folders.get(r)?.entries.length === 0) &&
    state.making === null;
  const noMatch =
    state.filter !== "" &&
    !nothing &&
    ![...state.folders.values()].some((f) => f.entries.some((e) => e.name.toLowerCase().includes(state.filter)));
  const chosen = [...state.selected].filter((p) => parent(p) !== "/");

  const removeChosen = async () => {
    try {
      const gone = await files.remove(chosen);
      if (gone.length > 0)
        toast.undo(s.removed(gone.length, base(gone[0] ?? "")), () => files.restore(gone).catch(toast.failure));
    } catch (err) {
      toast.failure(err);
    }
  };
  const saveChosen = () => {
    for (const path of chosen) {
      const entry = files.entry(path);
      if (entry?.type === "directory") download(archiveUrl(files.sessionId, path), `${entry.name}.zip`);
      else if (entry) download(contentUrl(files.sessionId, entry), entry.name);
    }
  };

  return (
    <div className="flex h-full min-h-0 flex-col">
      {chosen.length > 1 ? (
        <div className="flex h-11 shrink-0 items-center gap-1 border-b bg-accent-soft px-3">
          <span className="min-w-0 flex-1 truncate font-medium text-sm">{s.selected(chosen.length)}</span>
          <IconButton size="sm" label={s.download} onClick={saveChosen}>
            <Download />
          </IconButton>
          {changes && (
            <IconButton size="sm" label={s.remove} onClick={() => void removeChosen()}>
              <Trash2 />
            </IconButton>
          )}
          <IconButton size="sm" label={s.clearSelection} onClick={() => files.select(state.cursor)}>
            <X />
          </IconButton>
        </div>
      ) : (
        <div className="flex h-11 shrink-0 items-center gap-1 border-b px-2">
          <div className="relative min-w-0 flex-1">
            <Search aria-hidden className="-translate-y-1/2 absolute top-1/2 left-2 size-3.5 text-muted" />
            <input
              type="search"
              value={text}
              onChange={(e) => setText(e.target.value)}
              onKeyDown={(e) => {
                if (e.key === "Escape" && text !== "") {
                  e.stopPropagation();
                  setText("");
                }
              }}
              placeholder={s.search}
              aria-label={s.search}
              className="h-8 w-full rounded-md border border-transparent bg-sunken pr-7 pl-7 text-sm outline-none focus:border-accent [&::-webkit-search-cancel-button]:hidden"
            />
            {text !== "" && (
              <button
                type="button"
                aria-label={s.clearSearch}
                onClick={() => setText("")}
                className="-translate-y-1/2 absolute top-1/2 right-1 flex size-6 items-center justify-center rounded text-muted hover:text-ink"
              >
                <X className="size-3.5" />
              </button>
            )}
          </div>
          {changes && (
            <IconButton size="sm" label={s.uploadFiles} onClick={() => input.choose(uploadDir)}>
              <Upload />
            </IconButton>
          )}
          <Menu
            trigger={
              <IconButton size="sm" label={s.more} tip={false}>
                <MoreHorizontal />
              </IconButton>
            }
          >
            {changes && (
              <>
                <MenuItem icon={<FolderUp />} onSelect={() => input.choose(uploadDir, true)}>
                  {s.uploadFolder}
                </MenuItem>
                <MenuItem
                  icon={<FolderPlus />}
                  onSelect={() => {
                    void files.expand(roots[0]);
                    files.set({ making: roots[0] });
                  }}
                >
                  {s.newFolder}
                </MenuItem>
              </>
            )}
            <MenuItem icon={state.hidden ? <EyeOff /> : <Eye />} onSelect={() => files.set({ hidden: !state.hidden })}>
              {state.hidden ? s.hideHidden : s.showHidden}
            </MenuItem>
            <MenuItem icon={<RefreshCw />} onSelect={() => void files.refresh()}>
              {s.refresh}
            </MenuItem>
          </Menu>
        </div>
      )}
      {!changes && !nothing && (
        <p className="flex shrink-0 gap-2 border-b bg-sunken px-3 py-2 text-muted text-xs">
          <Eye aria-hidden className="mt-px size-3.5 shrink-0" />
          {s.readOnlyText}
        </p>
      )}
      {!live && !nothing && ready && (
        <p className="flex shrink-0 gap-2 border-b bg-sunken px-3 py-2 text-muted text-xs">
          <Info aria-hidden className="mt-px size-3.5 shrink-0" />
          {s.keptCopy}
        </p>
      )}
      <div className="min-h-0 flex-1 overflow-auto">
        {nothing ? (
          <Nothing onUpload={() => input.choose(uploadDir)} />
        ) : noMatch ? (
          <p className="px-4 py-6 text-center text-muted text-sm">{s.noMatch}</p>
        ) : (
          <FileTree
            files={files}
            marks={marks}
            onUpload={(dir) => input.choose(dir)}
            onInsert={insert}
            onGoto={showItem}
            onDropFiles={(list, dir) => void addFiles(actions, list, dir, "drop")}
          />
        )}
      </div>
      <TransferList sessionId={files.sessionId} />
      {input.element}
      <PreviewHost />
    </div>
  );
}
