import { ChevronRight, MoreHorizontal } from "lucide-react";
import { type DragEvent, type MouseEvent, memo, useEffect, useId, useRef, useState } from "react";
import { cx } from "@/lib/cx";
import { formatAgo, formatBytes } from "@/lib/format";
import { Menu } from "@/ui";
import { compactAge } from "./age";
import { FileIcon } from "./icons";
import type { Mark } from "./marks";
import { rowId } from "./paths";
import { useStrings } from "./strings";
import type { Row } from "./tree";

export interface RowHandlers {
  click: (row: Row, event: MouseEvent) => void;
  open: (row: Row) => void;
  toggle: (row: Row) => void;
  rename: (row: Row, name: string) => Promise<string | undefined>; // gives what is wrong with the name
  stopRename: () => void;
  dragStart: (row: Row, event: DragEvent) => void;
  dragOver: (row: Row, event: DragEvent) => void;
  drop: (row: Row, event: DragEvent) => void;
  menu: (row: Row) => React.ReactNode;
  menuOpened: (row: Row) => void;
}

export interface FileRowProps {
  row: Row;
  name: string;
  cursor: boolean;
  selected: boolean;
  renaming: boolean;
  target: boolean;
  mark: Mark | undefined;
  holdsMark: boolean;
  handlers: RowHandlers;
}

/** One line of the tree. */
export const FileRow = memo(function FileRow(props: FileRowProps) {
  const { row, name, cursor, selected, renaming, target, mark, holdsMark, handlers } = props;
  const s = useStrings();
  const [menu, setMenu] = useState(false);
  const label = useId();
  const { entry } = row;
  const age = entry ? formatAgo(entry.modified_at) : "";
  const facts = entry && !row.folder ? [formatBytes(entry.size_bytes), age].join(", ") : "";
  const marked = mark ? (mark.change === "created" ? s.madeBy(mark.count) : s.changedBy(mark.count)) : "";
  const openMenu = (open: boolean) => {
    if (open) handlers.menuOpened(row);
    setMenu(open);
  };
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the tree around it has the keys
    <div
      role="treeitem"
      id={rowId(row.path)}
      data-path={row.path}
      aria-level={row.level}
      aria-posinset={row.position}
      aria-setsize={row.of}
      aria-expanded={row.folder ? row.expanded : undefined}
      aria-selected={selected}
      // What is to be seen, and then what it means: labels that say something else confuse those who speak to the page.
      aria-labelledby={[`${label}n`, `${label}m`, `${label}f`, `${label}x`].join(" ")}
      tabIndex={cursor ? 0 : -1}
      title={[row.path, facts, marked].filter(Boolean).join("\n")}
      draggable={!renaming && row.level > 1}
      onClick={(e) => handlers.click(row, e)}
      onContextMenu={(e) => {
        e.preventDefault();
        openMenu(true);
      }}
      onDragStart={(e) => handlers.dragStart(row, e)}
      onDragOver={(e) => handlers.dragOver(row, e)}
      onDrop={(e) => handlers.drop(row, e)}
      className={cx(
        "group/row relative flex h-8 cursor-default select-none items-center gap-1.5 rounded-md pr-1 text-sm pointer-coarse:h-10",
        "focus-visible:outline-offset-[-2px]",
        target ? "bg-accent-soft ring-1 ring-accent ring-inset" : selected ? "bg-accent-soft" : "hover:bg-hover",
        entry?.name.startsWith(".") && "opacity-70",
      )}
      style={{ paddingInlineStart: `${(row.level - 1) * 0.875 + 0.125}rem` }}
    >
      {row.folder ? (
        <ChevronRight
          aria-hidden
          onClick={(e) => {
            e.stopPropagation();
            handlers.toggle(row);
          }}
          className={cx("size-4 shrink-0 text-muted transition-transform", row.expanded && "rotate-90")}
        />
      ) : (
        <span className="w-4 shrink-0" />
      )}
      <FileIcon path={row.path} folder={row.folder} open={row.expanded} />
      {renaming ? (
        <NameInput
          name={row.name}
          folder={row.folder}
          commit={(next) => handlers.rename(row, next)}
          cancel={handlers.stopRename}
        />
      ) : (
        <span id={`${label}n`} className={cx("min-w-0 flex-1 truncate", row.level === 1 && "font-medium")}>
          {name}
        </span>
      )}
      {" " /* not to be seen, but text that is read along has words of its own */}
      {!renaming && mark && (
        <span
          id={`${label}m`}
          className={cx(
            "shrink-0 rounded-full px-1.5 font-medium text-2xs leading-4",
            mark.change === "created" ? "bg-success-soft text-success" : "bg-warning-soft text-warning",
          )}
        >
          {mark.change === "created" ? s.isNew : s.changed}
        </span>
      )}
      {!renaming && !mark && holdsMark && (
        <span
          id={`${label}m`}
          title={s.holdsNew}
          className="size-2 shrink-0 rounded-full bg-success"
          role="img"
          aria-label={s.holdsNew}
        />
      )}{" "}
      {!renaming && entry && (
        <span id={`${label}f`} className="flex shrink-0 gap-2 text-2xs text-muted tabular-nums">
          {entry.kept === false && (
            <span className="text-warning" title={s.notKept}>
              {s.notKeptShort}
            </span>
          )}{" "}
          {!row.folder && <span>{formatBytes(entry.size_bytes)}</span>}{" "}
          {!row.folder && (
            <span className="hidden w-8 text-right @[17rem]:inline">{compactAge(entry.modified_at)}</span>
          )}
        </span>
      )}{" "}
      <span id={`${label}x`} className="sr-only">
        {[renaming ? name : "", marked, entry?.kept === false ? s.notKept : "", row.folder ? "" : age]
          .filter(Boolean)
          .join(", ")}
      </span>
      {!renaming && (
        <Menu
          open={menu}
          onOpenChange={openMenu}
          trigger={
            <button
              type="button"
              tabIndex={-1}
              aria-label={s.menuOf(name)}
              onClick={(e) => e.stopPropagation()}
              className={cx(
                "flex size-6 shrink-0 items-center justify-center rounded text-muted hover:bg-line hover:text-ink pointer-coarse:size-9",
                "opacity-0 group-hover/row:opacity-100 group-focus/row:opacity-100 data-[state=open]:opacity-100 pointer-coarse:opacity-100",
              )}
            >
              <MoreHorizontal className="size-4" />
            </button>
          }
        >
          {menu && handlers.menu(row)}
        </Menu>
      )}
    </div>
  );
});

export interface NameInputProps {
  name: string;
  folder: boolean;
  /** Of something that is not there yet: the name as it stands is one too. */
  fresh?: boolean;
  commit: (name: string) => Promise<string | undefined>;
  cancel: () => void;
}

/** A name being edited in its place. */
export function NameInput({ name, folder, fresh, commit, cancel }: NameInputProps) {
  const s = useStrings();
  const input = useRef<HTMLInputElement>(null);
  const [problem, setProblem] = useState<string>();
  const busy = useRef(false);
  const since = useRef(performance.now());
  useEffect(() => {
    const element = input.current;
    if (!element) return;
    // A menu that closes gives the focus back to its button, after this.
    const timer = setTimeout(() => {
      element.focus();
      const dot = folder ? -1 : name.lastIndexOf(".");
      element.setSelectionRange(0, dot > 0 ? dot : name.length); // the extension mostly stays
    });
    return () => clearTimeout(timer);
  }, [name, folder]);
  const done = async () => {
    if (busy.current) return;
    const next = input.current?.value.trim() ?? "";
    if (next === name && !fresh) return cancel();
    if (next === "" || next === "." || next === ".." || next.includes("/")) return setProblem(s.badName);
    busy.current = true;
    const wrong = await commit(next);
    busy.current = false;
    if (wrong) {
      setProblem(wrong);
      input.current?.focus();
    }
  };
  return (
    <span className="relative min-w-0 flex-1">
      <input
        ref={input}
        defaultValue={name}
        aria-label={s.newName}
        aria-invalid={problem !== undefined}
        maxLength={255}
        spellCheck={false}
        autoComplete="off"
        className="h-6 w-full rounded border border-accent bg-raised px-1 text-sm outline-none"
        onClick={(e) => e.stopPropagation()}
        onKeyDown={(e) => {
          e.stopPropagation();
          if (e.key === "Enter") void done();
          else if (e.key === "Escape") cancel();
          else setProblem(undefined);
        }}
        onBlur={() => {
          // The menu this came from gives the focus back to its button when it is gone.
          if (performance.now() - since.current < 400) input.current?.focus();
          else if (problem) cancel();
          else void done();
        }}
      />
      {problem && (
        <span
          role="alert"
          className="absolute top-7 left-0 z-10 rounded-md bg-danger px-2 py-1 text-on-danger text-xs shadow-pop"
        >
          {problem}
        </span>
      )}
    </span>
  );
}
