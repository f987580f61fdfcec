import { ArrowDown, ArrowUp, CodeXml, Ellipsis, Pencil, Trash2 } from "lucide-react";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import type { Item } from "@/api/types";
import { mayChange, useMay } from "@/features/account/me";
import { Markdown } from "@/features/chat/Markdown";
import { useActions } from "@/features/session";
import { cx } from "@/lib/cx";
import { Button, IconButton, Menu, MenuItem, MenuLine } from "@/ui";
import { useNotebook, useNotebookState } from "./controller";
import { DragHandle } from "./DragHandle";
import { CodeEditor } from "./editor/CodeEditor";
import type { EditorContext, EditorHandle } from "./editor/types";
import { useStrings } from "./strings";

/** Text that a person wrote for themselves: Markdown, edited on a double click. */
export function Note({ item }: { item: Item }) {
  const s = useStrings();
  const actions = useActions();
  const notebook = useNotebook();
  const selected = useNotebookState((state) => state.selected === item.id);
  const [editing, setEditing] = useState(false);
  const [open, setOpen] = useState(false);
  const changes = useMay("write");
  const root = useRef<HTMLElement>(null);
  const editor = useRef<EditorHandle>(null);
  const { id } = item;
  const text = item.text ?? "";

  const edit = useCallback((at?: "start" | "end") => {
    if (!mayChange()) return;
    setEditing(true);
    setTimeout(() => editor.current?.focus(at ?? "end"));
  }, []);
  const finish = useCallback(() => setEditing(false), []);
  useEffect(
    () =>
      notebook.register(id, {
        edit,
        finish,
        focus: () => {
          editor.current?.blur();
          const element = root.current?.closest<HTMLElement>("[data-entry]");
          element?.focus({ preventScroll: true });
          element?.scrollIntoView({ block: "nearest" });
        },
      }),
    [notebook, id, edit, finish],
  );
  const context = useMemo<EditorContext>(
    () => ({
      onChange: (value) => actions.edit(id, { text: value }),
      onKey: (event) => notebook.press(event, true),
      onFocus: () => notebook.focused(id, "edit"),
      onBlur: () => void actions.saveEdits(id),
    }),
    [actions, notebook, id],
  );
  return (
    <section
      ref={root}
      aria-label={s.note}
      className={cx(
        "group/cell relative flex rounded-xl border px-3 py-1.5 transition-colors",
        editing ? "border-accent/60 bg-raised" : selected ? "border-accent/60" : "border-transparent hover:border-line",
      )}
      onDoubleClick={() => !editing && edit()}
    >
      <DragHandle id={id} />
      <div className="min-w-0 flex-1">
        {editing ? (
          <div className="-mx-3">
            <CodeEditor
              ref={editor}
              eager
              id={id}
              value={text}
              context={context}
              language="markdown"
              hint={s.emptyNote}
            />
          </div>
        ) : text.trim() === "" ? (
          <p className="text-muted text-sm">{s.emptyNoteShown}</p>
        ) : (
          <Markdown text={text} />
        )}
      </div>
      <div
        className={cx(
          "flex shrink-0 items-start focus-within:opacity-100 group-focus-within/cell:opacity-100 group-hover/cell:opacity-100 pointer-coarse:opacity-100",
          open || editing ? "opacity-100" : "opacity-0",
        )}
        hidden={!changes}
      >
        {editing ? (
          <Button
            size="sm"
            variant="ghost"
            onClick={() => {
              finish();
              notebook.select(id);
            }}
          >
            {s.finishNote}
          </Button>
        ) : (
          <IconButton size="sm" label={s.editNote} keys="Enter" onClick={() => edit()}>
            <Pencil aria-hidden />
          </IconButton>
        )}
        <Menu
          open={open}
          onOpenChange={setOpen}
          trigger={
            <IconButton size="sm" label={s.menu} tip={false}>
              <Ellipsis aria-hidden />
            </IconButton>
          }
        >
          <MenuItem icon={<ArrowUp />} keys="Ctrl+Shift+↑" onSelect={() => notebook.move(id, -1)}>
            {s.up}
          </MenuItem>
          <MenuItem icon={<ArrowDown />} keys="Ctrl+Shift+↓" onSelect={() => notebook.move(id, 1)}>
            {s.down}
          </MenuItem>
          <MenuItem icon={<CodeXml />} keys="Y" onSelect={() => actions.edit(id, { kind: "cell" })}>
            {s.toCode}
          </MenuItem>
          <MenuLine />
          <MenuItem icon={<Trash2 />} keys="D D" danger onSelect={() => void notebook.remove(id)}>
            {s.remove}
          </MenuItem>
        </Menu>
      </div>
    </section>
  );
}
