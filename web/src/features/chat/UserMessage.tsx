import { FileText, Pencil } from "lucide-react";
import { type KeyboardEvent, useEffect, useLayoutEffect, useRef, useState } from "react";
import type { Item } from "@/api/types";
import { useMay } from "@/features/account/me";
import { openPreview } from "@/features/files/preview";
import { useActions } from "@/features/session";
import { cx } from "@/lib/cx";
import { Button, IconButton } from "@/ui";
import { Branches } from "./Branches";
import { onEditMessage } from "./editing";
import { fitHeight } from "./fit";
import { CopyButton } from "./markdown/CodeBlock";
import { useStrings } from "./strings";

const foldAfter = 12; // lines

/** What a person said, with its files; edited in place it becomes another branch. */
export function UserMessage({ item }: { item: Item }) {
  const s = useStrings();
  const [editing, setEditing] = useState(false);
  const [whole, setWhole] = useState(false);
  useEffect(() => onEditMessage(item.id, () => setEditing(true)), [item.id]);
  const changes = useMay("execute");
  const text = item.text ?? "";
  const long = text.split("\n").length > foldAfter || text.length > 1200;
  if (editing) return <Edit item={item} onDone={() => setEditing(false)} />;
  return (
    <div className="group/message flex flex-col items-end">
      {item.files && item.files.length > 0 ? <FileChips files={item.files} className="mb-1 justify-end" /> : null}
      {text === "" ? null : (
        <div className="max-w-[88%] rounded-2xl rounded-br-md bg-accent-soft px-4 py-2.5 sm:max-w-[80%]">
          <p className={cx("whitespace-pre-wrap break-words", long && !whole && "line-clamp-12")}>{text}</p>
          {long ? (
            <button type="button" className="mt-1 text-accent text-sm hover:underline" onClick={() => setWhole(!whole)}>
              {whole ? s.message.less : s.message.more}
            </button>
          ) : null}
        </div>
      )}
      <div className="-mb-1 flex h-7 items-center gap-0.5">
        <div className="flex items-center opacity-0 transition-opacity focus-within:opacity-100 group-hover/message:opacity-100 pointer-coarse:opacity-100">
          <CopyButton
            bare
            text={text}
            className="inline-flex size-7 items-center justify-center rounded-md text-muted hover:bg-hover hover:text-ink"
          />
          {changes && (
            <IconButton size="sm" label={s.message.edit} onClick={() => setEditing(true)}>
              <Pencil aria-hidden />
            </IconButton>
          )}
        </div>
        <Branches item={item} />
      </div>
    </div>
  );
}

/** Files by their names; a click shows one. */
export function FileChips({ files, className }: { files: readonly string[]; className?: string }) {
  const s = useStrings();
  return (
    <div className={cx("flex flex-wrap gap-1.5", className)}>
      {files.map((path) => {
        const name = path.slice(path.lastIndexOf("/") + 1);
        return (
          <button
            key={path}
            type="button"
            title={path}
            aria-label={s.message.open(name)}
            className="inline-flex h-8 max-w-64 items-center gap-2 rounded-lg border bg-raised px-2.5 text-sm hover:border-line-strong hover:bg-hover"
            onClick={() => openPreview(path)}
          >
            <FileText className="size-4 shrink-0 text-accent" aria-hidden />
            <span className="truncate">{name}</span>
          </button>
        );
      })}
    </div>
  );
}

function Edit({ item, onDone }: { item: Item; onDone: () => void }) {
  const s = useStrings();
  const actions = useActions();
  const [text, setText] = useState(item.text ?? "");
  const [busy, setBusy] = useState(false);
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    const field = area.current;
    field?.focus();
    field?.setSelectionRange(field.value.length, field.value.length);
  }, []);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the text decides the height
  useLayoutEffect(() => fitHeight(area.current, 400), [text]);
  const send = async () => {
    if (text.trim() === "") return;
    setBusy(true);
    const sent = await actions.send({ text, replaces: item.id, ...(item.files ? { files: item.files } : {}) });
    setBusy(false);
    if (sent) onDone();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.nativeEvent.isComposing) return;
    if (event.key === "Escape") {
      event.stopPropagation();
      onDone();
    } else if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      void send();
    }
  };
  return (
    <div className="rounded-2xl border border-accent/60 bg-raised p-3">
      {item.files && item.files.length > 0 ? <FileChips files={item.files} className="mb-2" /> : null}
      <textarea
        ref={area}
        value={text}
        aria-label={s.message.editLabel}
        onChange={(event) => setText(event.target.value)}
        onKeyDown={onKeyDown}
        rows={2}
        className="block w-full resize-none bg-transparent outline-none"
      />
      <div className="mt-2 flex flex-wrap items-center justify-end gap-2">
        <span className="mr-auto text-muted text-xs">{s.message.branchNote}</span>
        <Button size="sm" onClick={onDone}>
          {s.cancel}
        </Button>
        <Button size="sm" variant="primary" busy={busy} disabled={text.trim() === ""} onClick={() => void send()}>
          {s.message.send}
        </Button>
      </div>
    </div>
  );
}
