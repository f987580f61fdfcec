import {
  Clipboard,
  CornerDownRight,
  Download,
  Eye,
  FolderPlus,
  Pencil,
  SquareCode,
  Trash2,
  Upload,
} from "lucide-react";
import { type KeyboardEvent, type MouseEvent, useEffect, useMemo, useRef, useState } from "react";
import { useStore } from "zustand";
import { ApiError } from "@/api/client";
import { mayChange, useMay } from "@/features/account/me";
import { MenuItem, MenuLine, toast } from "@/ui";
import { archiveUrl, contentUrl, download } from "./api";
import { carried, carriedType, setDropTarget, useDropTarget } from "./drag";
import { FileRow, NameInput, type RowHandlers } from "./FileRow";
import { FileIcon } from "./icons";
import { holdsMark, type Mark } from "./marks";
import { base, parent, pythonString, rowId } from "./paths";
import { openPreview } from "./preview";
import type { Files } from "./store";
import { useStrings } from "./strings";
import { between, flatten, type Row, step, typeAhead } from "./tree";

export interface FileTreeProps {
  files: Files;
  marks: ReadonlyMap<string, Mark>;
  onUpload: (dir: string) => void;
  onInsert: (text: string) => void;
  onGoto: (itemId: string) => void;
  onDropFiles: (items: DataTransferItemList, dir: string) => void;
}

// Rows beyond this come on request: a folder of thousands would make each change slow.
const shownAtFirst = 500;

/** The folder that what is dropped on a row goes to. */
function folderOf(row: Row): string {
  return row.folder ? row.path : parent(row.path);
}

export function FileTree({ files, marks, onUpload, onInsert, onGoto, onDropFiles }: FileTreeProps) {
  const s = useStrings();
  const state = useStore(files.store);
  const changes = useMay("write");
  const target = useDropTarget((t) => t.dir);
  const [limit, setLimit] = useState(shownAtFirst);
  const tree = useRef<HTMLDivElement>(null);
  const focusCursor = useRef(false);
  const typed = useRef({ text: "", at: 0 });
  const { folders, expanded, filter, hidden, cursor, selected } = state;
  const rows = useMemo(() => flatten({ folders, expanded, filter, hidden }), [folders, expanded, filter, hidden]);
  const current = rows.some((r) => r.path === cursor) ? cursor : (rows[0]?.path ?? "");
  const at = rows.findIndex((r) => r.path === current);
  const shown = rows.length > limit ? rows.slice(0, Math.max(limit, at + 1)) : rows;

  useEffect(() => {
    if (!focusCursor.current) return;
    focusCursor.current = false;
    const row = document.getElementById(rowId(current));
    row?.focus({ preventScroll: true });
    row?.scrollIntoView?.({ block: "nearest" });
  });

  const name = (row: Row) => (row.level > 1 ? row.name : row.path === "/workspace" ? s.workspace : s.uploads);
  const move = (path: string, extend: boolean) => {
    focusCursor.current = true;
    if (extend) files.set({ cursor: path, selected: new Set(between(rows, state.anchor, path)) });
    else files.select(path);
  };
  const see = (paths: Iterable<string>) => {
    const keys: string[] = [];
    for (const p of paths) {
      const mark = marks.get(p);
      if (mark) keys.push(mark.key);
    }
    files.see(keys);
  };
  const open = (row: Row) => {
    see([row.path]);
    if (row.folder) files.toggle(row.path);
    else openPreview(row.path);
  };
  /** What an action on a row is about: the selection, if the row is part of it. */
  const meant = (row: Row): string[] => {
    const paths = selected.has(row.path) ? [...selected] : [row.path];
    return paths.filter((p) => parent(p) !== "/");
  };
  const remove = async (paths: string[]) => {
    if (paths.length === 0 || !mayChange()) return;
    const next = rows.find((r, i) => i > at && !paths.includes(r.path)) ?? rows[at - 1];
    try {
      const gone = await files.remove(paths);
      if (next) move(next.path, false);
      if (gone.length > 0)
        toast.undo(s.removed(gone.length, base(gone[0] ?? "")), () => files.restore(gone).catch(toast.failure));
    } catch (err) {
      toast.failure(err);
    }
  };
  const save = (row: Row) => {
    see([row.path]);
    if (row.folder) download(archiveUrl(files.sessionId, row.path), `${row.name}.zip`);
    else download(contentUrl(files.sessionId, row.entry ?? row.path), row.name);
  };
  const copyPaths = async (paths: string[]) => {
    try {
      await navigator.clipboard.writeText(paths.join("\n"));
      toast.success(s.copied);
    } catch (err) {
      toast.failure(err);
    }
  };
  const startRename = (row: Row) => row.level > 1 && mayChange() && files.set({ renaming: row.path, cursor: row.path });
  const startFolder = (dir: string) => {
    void files.expand(dir);
    files.set({ making: dir });
  };
  const wrong = (err: unknown): string => {
    if (!(err instanceof ApiError)) return String(err);
    return err.code === "file-exists" ? s.nameTaken : err.detail;
  };

  const handlers: RowHandlers = {
    click(row: Row, event: MouseEvent) {
      if (event.shiftKey) {
        files.set({ cursor: row.path, selected: new Set(between(rows, state.anchor, row.path)) });
      } else if (event.ctrlKey || event.metaKey) {
        const next = new Set(selected);
        if (!next.delete(row.path)) next.add(row.path);
        files.set({ cursor: row.path, anchor: row.path, selected: next });
      } else {
        files.select(row.path);
        open(row);
      }
    },
    open,
    toggle: (row) => files.toggle(row.path),
    async rename(row, next) {
      try {
        await files.rename(row.path, next);
        focusCursor.current = true;
        files.set({ renaming: null });
        return undefined;
      } catch (err) {
        return wrong(err);
      }
    },
    stopRename() {
      focusCursor.current = true;
      files.set({ renaming: null });
    },
    dragStart(row, event) {
      const paths = meant(row);
      if (paths.length === 0) return event.preventDefault();
      event.dataTransfer.setData(carriedType, JSON.stringify(paths));
      // Dropped into code, it is the path.
      event.dataTransfer.setData("text/plain", paths.map(pythonString).join(", "));
      event.dataTransfer.effectAllowed = "copyMove";
    },
    dragOver(row, event) {
      const dir = folderOf(row);
      const types = event.dataTransfer.types;
      if (types.includes(carriedType)) {
        event.preventDefault();
        event.stopPropagation();
        event.dataTransfer.dropEffect = "move";
        setDropTarget(dir);
      } else if (types.includes("Files")) {
        event.preventDefault(); // and up to the page, which shows that it takes files
        setDropTarget(dir);
      }
    },
    drop(row, event) {
      const dir = folderOf(row);
      const paths = carried(event.dataTransfer);
      setDropTarget(null);
      if (paths) {
        event.preventDefault();
        event.stopPropagation();
        if (!mayChange()) return;
        files
          .moveInto(paths, dir)
          .then((taken) => taken.length > 0 && toast.warning(s.taken(base(taken[0] ?? ""))))
          .catch(toast.failure);
      } else if (event.dataTransfer.types.includes("Files")) {
        event.preventDefault(); // the page sees that it is done, and only ends its overlay
        onDropFiles(event.dataTransfer.items, dir);
      }
    },
    menuOpened(row) {
      if (!selected.has(row.path)) files.select(row.path);
    },
    menu(row) {
      const mark = marks.get(row.path);
      const paths = meant(row);
      const single = paths.length <= 1;
      return (
        <>
          {!row.folder && single && (
            <MenuItem icon={<Eye />} keys="Enter" onSelect={() => open(row)}>
              {s.preview}
            </MenuItem>
          )}
          {single && (
            <MenuItem icon={<Download />} onSelect={() => save(row)}>
              {row.folder ? s.downloadZip : s.download}
            </MenuItem>
          )}
          {row.folder && changes && (
            <>
              <MenuItem icon={<Upload />} onSelect={() => onUpload(row.path)}>
                {s.uploadHere}
              </MenuItem>
              <MenuItem icon={<FolderPlus />} onSelect={() => startFolder(row.path)}>
                {s.newFolder}
              </MenuItem>
            </>
          )}
          <MenuLine />
          <MenuItem icon={<Clipboard />} onSelect={() => void copyPaths(paths.length > 0 ? paths : [row.path])}>
            {s.copyPath}
          </MenuItem>
          {changes && (
            <MenuItem
              icon={<SquareCode />}
              onSelect={() => onInsert((paths.length > 0 ? paths : [row.path]).map(pythonString).join(", "))}
            >
              {s.insert}
            </MenuItem>
          )}
          {mark && (
            <MenuItem icon={<CornerDownRight />} onSelect={() => onGoto(mark.itemId)}>
              {s.gotoCell}
            </MenuItem>
          )}
          {row.level > 1 && changes && (
            <>
              <MenuLine />
              {single && (
                <MenuItem icon={<Pencil />} keys="F2" onSelect={() => startRename(row)}>
                  {s.rename}
                </MenuItem>
              )}
              <MenuItem icon={<Trash2 />} danger onSelect={() => void remove(paths)}>
                {s.remove}
              </MenuItem>
            </>
          )}
        </>
      );
    },
  };
  // Rows compare their properties; these change with each render and mean the same.
  const latest = useRef(handlers);
  latest.current = handlers;
  const stable = useMemo<RowHandlers>(() => {
    const through = <K extends keyof RowHandlers>(key: K) =>
      ((...args: never[]) => (latest.current[key] as (...a: never[]) => unknown)(...args)) as RowHandlers[K];
    const keys: (keyof RowHandlers)[] = [
      "click",
      "open",
      "toggle",
      "rename",
      "stopRename",
      "dragStart",
      "dragOver",
      "drop",
      "menu",
      "menuOpened",
    ];
    return Object.fromEntries(keys.map((key) => [key, through(key)])) as unknown as RowHandlers;
  }, []);

  const keyDown = (event: KeyboardEvent) => {
    const row = rows[at];
    if (!row || event.defaultPrevented || event.altKey) return;
    const mod = event.ctrlKey || event.metaKey;
    const taken = () => {
      event.preventDefault();
      event.stopPropagation(); // the page's own shortcuts have the same keys
    };
    const to = mod ? undefined : step(rows, current, event.key);
    if (to) {
      taken();
      if ("go" in to) move(to.go, event.shiftKey);
      else if ("expand" in to) void files.expand(to.expand);
      else files.collapse(to.collapse);
      return;
    }
    if (mod) {
      if (event.key === "a") {
        taken();
        files.set({ selected: new Set(rows.filter((r) => r.level > 1).map((r) => r.path)) });
      } else if (event.key === "c" && !window.getSelection()?.toString()) {
        taken();
        void copyPaths(selected.size > 0 ? [...selected] : [current]);
      }
      return;
    }
    switch (event.key) {
      case "Enter":
        taken();
        open(row);
        return;
      case " ": {
        taken();
        const next = new Set(selected);
        if (!next.delete(current)) next.add(current);
        files.set({ selected: next, anchor: current });
        return;
      }
      case "F2":
        taken();
        startRename(row);
        return;
      case "Delete":
      case "Backspace":
        if (event.key === "Backspace" && !event.metaKey && !/Mac/.test(navigator.platform)) return;
        taken();
        void remove(meant(row));
        return;
      case "Escape":
        if (selected.size > 1) {
          taken();
          files.select(current);
        }
        return;
      default: {
        if (event.key.length !== 1) return;
        taken();
        const now = event.timeStamp;
        const text =
          now - typed.current.at < 800 ? typed.current.text + event.key.toLowerCase() : event.key.toLowerCase();
        typed.current = { text, at: now };
        const found = typeAhead(rows, current, text);
        if (found) move(found, false);
      }
    }
  };

  return (
    <div
      ref={tree}
      role="tree"
      aria-label={s.tree}
      aria-multiselectable
      onKeyDown={keyDown}
      onDragLeave={(e) => {
        if (!e.currentTarget.contains(e.relatedTarget as Node | null)) setDropTarget(null);
      }}
      className="@container px-1.5 py-1"
    >
      {shown.map((row) => (
        <RowWithNotes
          key={row.path}
          row={row}
          files={files}
          making={state.making === row.path}
          onMakeDone={() => {
            focusCursor.current = true;
            files.set({ making: null });
          }}
          wrong={wrong}
        >
          <FileRow
            row={row}
            name={name(row)}
            cursor={row.path === current}
            selected={selected.has(row.path)}
            renaming={state.renaming === row.path}
            target={target !== null && row.folder && row.path === target}
            mark={marks.get(row.path)}
            holdsMark={row.folder && !row.expanded && holdsMark(marks, row.path)}
            handlers={stable}
          />
        </RowWithNotes>
      ))}
      {shown.length < rows.length && (
        <button
          type="button"
          onClick={() => setLimit(limit * 4)}
          className="mt-1 w-full rounded-md px-2 py-1.5 text-left text-accent text-sm hover:bg-hover"
        >
          {s.showMore(rows.length - shown.length)}
        </button>
      )}
    </div>
  );
}

interface RowWithNotesProps {
  row: Row;
  files: Files;
  making: boolean;
  onMakeDone: () => void;
  wrong: (err: unknown) => string;
  children: React.ReactNode;
}

/** A row, and under an open folder what is to be said of it. */
function RowWithNotes({ row, files, making, onMakeDone, wrong, children }: RowWithNotesProps) {
  const s = useStrings();
  const folder = useStore(files.store, (state) =>
    row.folder && row.expanded ? state.folders.get(row.path) : undefined,
  );
  const indent = { paddingInlineStart: `${row.level * 0.875 + 1.375}rem` };
  const note = (text: string, tone = "text-muted") => (
    <p className={`pr-2 pb-1 text-xs ${tone}`} style={indent}>
      {text}
    </p>
  );
  return (
    <>
      {children}
      {making && (
        <div className="flex h-8 items-center gap-1.5 pr-2" style={indent}>
          <FileIcon path={row.path} folder />
          <NameInput
            name={files.freeFolderName(row.path, s.folderName)}
            folder
            fresh
            cancel={onMakeDone}
            commit={async (name) => {
              try {
                await files.makeFolder(row.path, name);
                onMakeDone();
                return undefined;
              } catch (err) {
                return wrong(err);
              }
            }}
          />
        </div>
      )}
      {folder?.status === "loading" && note(s.loading)}
      {folder?.status === "failed" && note(folder.problem ?? "", "text-danger")}
      {folder?.status === "ready" && folder.entries.length === 0 && !making && note(s.emptyFolder)}
      {folder?.truncated && note(s.truncated)}
      {folder?.notice && note(folder.notice, "text-warning")}
    </>
  );
}
