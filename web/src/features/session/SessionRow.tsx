import { Copy, Download, MoreHorizontal, Pencil, Pin, PinOff, Trash2 } from "lucide-react";
import { useRef, useState } from "react";
import { Link } from "wouter";
import type { Session } from "@/api/types";
import { useMay } from "@/features/account/me";
import { cx } from "@/lib/cx";
import { IconButton, Menu, MenuItem, MenuLine, MenuLink, MenuSub } from "@/ui";
import { duplicateSession, exportFormats, exportURL, pathOf, removeSession, updateSession } from "./sessions";
import { useStrings } from "./strings";

export interface SessionRowProps {
  session: Session;
  current: boolean;
  onChosen?: (() => void) | undefined;
}

export function SessionRow({ session, current, onChosen }: SessionRowProps) {
  const s = useStrings();
  const [renaming, setRenaming] = useState(false);
  const changes = useMay("write");
  const title = session.title || s.untitled;
  const busy = session.turn !== undefined || session.sandbox.state === "busy";

  if (renaming) {
    return (
      <li className="px-0.5 py-px">
        <TitleInput
          title={session.title}
          onDone={(next) => {
            setRenaming(false);
            if (next !== null && next !== session.title) void updateSession(session.id, { title: next });
          }}
        />
      </li>
    );
  }
  return (
    <li
      className={cx(
        "group relative flex h-9 items-center rounded-md md:h-8",
        current ? "bg-hover" : "focus-within:bg-hover/60 hover:bg-hover/60",
      )}
    >
      <Link
        href={pathOf(session.id)}
        onClick={onChosen}
        onDoubleClick={() => changes && setRenaming(true)}
        onKeyDown={(e) => e.key === "F2" && changes && setRenaming(true)}
        aria-current={current ? "page" : undefined}
        className="flex h-full min-w-0 flex-1 items-center gap-2 rounded-md pr-9 pl-2 text-sm outline-offset-[-2px] md:pr-2 md:group-focus-within:pr-9 md:group-hover:pr-9"
      >
        <span className={cx("min-w-0 flex-1 truncate", !session.title && "text-muted", current && "font-medium")}>
          {title}
        </span>
        {busy && (
          <span role="img" aria-label={s.running} className="size-1.5 shrink-0 animate-pulse rounded-full bg-gold" />
        )}
      </Link>
      <span className="absolute right-1 md:opacity-0 md:focus-within:opacity-100 md:group-hover:opacity-100 md:has-data-[state=open]:opacity-100">
        <Menu
          align="start"
          trigger={
            <IconButton label={s.more(title)} size="sm" tip={false}>
              <MoreHorizontal />
            </IconButton>
          }
        >
          {changes && (
            <>
              <MenuItem icon={<Pencil />} onSelect={() => setTimeout(() => setRenaming(true))}>
                {s.rename}
              </MenuItem>
              <MenuItem
                icon={session.pinned ? <PinOff /> : <Pin />}
                onSelect={() => void updateSession(session.id, { pinned: !session.pinned })}
              >
                {session.pinned ? s.unpin : s.pin}
              </MenuItem>
              <MenuItem icon={<Copy />} onSelect={() => void duplicateSession(session.id)}>
                {s.duplicate}
              </MenuItem>
            </>
          )}
          <ExportMenu id={session.id} />
          {changes && (
            <>
              <MenuLine />
              <MenuItem icon={<Trash2 />} danger onSelect={() => void removeSession(session)}>
                {s.remove}
              </MenuItem>
            </>
          )}
        </Menu>
      </span>
    </li>
  );
}

/** The ways to take a session along. */
export function ExportMenu({ id }: { id: string }) {
  const s = useStrings();
  const names = { ipynb: s.notebookFile, py: s.pythonFile, md: s.markdownFile };
  return (
    <MenuSub icon={<Download />} label={s.exportAs}>
      {exportFormats.map((format) => (
        <MenuLink key={format} href={exportURL(id, format)} download>
          {names[format]}
        </MenuLink>
      ))}
    </MenuSub>
  );
}

/** A title being changed: Enter and leaving keep it, Escape does not. */
export function TitleInput({
  title,
  onDone,
  className,
}: {
  title: string;
  onDone: (title: string | null) => void;
  className?: string;
}) {
  const s = useStrings();
  const done = useRef(false);
  const finish = (value: string | null) => {
    if (done.current) return;
    done.current = true;
    onDone(value === null ? null : value.trim());
  };
  return (
    <input
      // biome-ignore lint/a11y/noAutofocus: the person has just asked to write here
      autoFocus
      defaultValue={title}
      aria-label={s.titleLabel}
      maxLength={200}
      onFocus={(e) => e.currentTarget.select()}
      onBlur={(e) => finish(e.currentTarget.value)}
      onKeyDown={(e) => {
        if (e.key === "Enter") finish(e.currentTarget.value);
        else if (e.key === "Escape") finish(null);
        else return;
        e.preventDefault();
        e.stopPropagation();
      }}
      className={cx("h-8 w-full rounded-md border border-accent bg-raised px-2 text-sm outline-none", className)}
    />
  );
}
