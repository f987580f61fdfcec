import {
  ArrowDown,
  ArrowDownToLine,
  ArrowUp,
  ArrowUpToLine,
  Copy,
  Ellipsis,
  Eraser,
  Eye,
  EyeOff,
  ListOrdered,
  Pilcrow,
  Trash2,
} from "lucide-react";
import { useState } from "react";
import type { Item } from "@/api/types";
import { useMay } from "@/features/account/me";
import { CopyButton } from "@/features/chat/markdown/CodeBlock";
import { copyText } from "@/features/chat/markdown/copy";
import { useActions, useSessionStore } from "@/features/session";
import { cx } from "@/lib/cx";
import { IconButton, Menu, MenuItem, MenuLine } from "@/ui";
import { useNotebook } from "./controller";
import { useStrings } from "./strings";

/** What else one can do with a cell. */
export function CellActions({ item }: { item: Item }) {
  const s = useStrings();
  const [open, setOpen] = useState(false);
  return (
    <div
      className={cx(
        "flex shrink-0 items-start pt-1 pr-1 transition-opacity focus-within:opacity-100 group-focus-within/cell:opacity-100 group-hover/cell:opacity-100 pointer-coarse:opacity-100",
        open ? "opacity-100" : "opacity-0",
      )}
    >
      <CopyButton
        text={item.code ?? ""}
        label={s.copyCode}
        bare
        className="hidden size-7 items-center justify-center rounded-md text-muted hover:bg-hover hover:text-ink sm:inline-flex"
      />
      <Menu
        open={open}
        onOpenChange={setOpen}
        trigger={
          <IconButton size="sm" label={s.menu} tip={false}>
            <Ellipsis aria-hidden />
          </IconButton>
        }
      >
        {open ? <Entries item={item} /> : null}
      </Menu>
    </div>
  );
}

function Entries({ item }: { item: Item }) {
  const s = useStrings();
  const actions = useActions();
  const notebook = useNotebook();
  const store = useSessionStore();
  const changes = useMay("write");
  const { id } = item;
  const looks = (
    <>
      <MenuItem icon={<ListOrdered />} keys="L" onSelect={() => notebook.toggleLines(id)}>
        {s.lines}
      </MenuItem>
      <MenuItem icon={<Copy />} onSelect={() => void copyText(item.code ?? "")}>
        {s.copyCode}
      </MenuItem>
    </>
  );
  if (!changes) return looks;
  const { order, items } = store.get();
  const at = order.indexOf(id);
  const above = order.slice(0, at).filter((other) => items.get(other)?.kind === "cell");
  return (
    <>
      <MenuItem icon={<ArrowDownToLine />} onSelect={() => void actions.runFrom(id)}>
        {s.runFrom}
      </MenuItem>
      <MenuItem icon={<ArrowUpToLine />} disabled={above.length === 0} onSelect={() => void actions.run(above)}>
        {s.runAbove}
      </MenuItem>
      <MenuLine />
      <MenuItem icon={<ArrowUp />} keys="Ctrl+Shift+↑" disabled={at <= 0} onSelect={() => notebook.move(id, -1)}>
        {s.up}
      </MenuItem>
      <MenuItem
        icon={<ArrowDown />}
        keys="Ctrl+Shift+↓"
        disabled={at === order.length - 1}
        onSelect={() => notebook.move(id, 1)}
      >
        {s.down}
      </MenuItem>
      <MenuLine />
      <MenuItem
        icon={item.code_hidden ? <Eye /> : <EyeOff />}
        onSelect={() => actions.edit(id, { code_hidden: !item.code_hidden })}
      >
        {item.code_hidden ? s.showCode : s.hideCode}
      </MenuItem>
      <MenuItem
        icon={item.outputs_hidden ? <Eye /> : <EyeOff />}
        keys="O"
        onSelect={() => actions.edit(id, { outputs_hidden: !item.outputs_hidden })}
      >
        {item.outputs_hidden ? s.showOutputs : s.hideOutputs}
      </MenuItem>
      {looks}
      <MenuItem icon={<Pilcrow />} keys="M" onSelect={() => actions.edit(id, { kind: "note" })}>
        {s.toText}
      </MenuItem>
      <MenuLine />
      <MenuItem
        icon={<Eraser />}
        disabled={(item.outputs ?? []).length === 0}
        onSelect={() => void actions.clearOutputs(id)}
      >
        {s.clear}
      </MenuItem>
      <MenuItem icon={<Trash2 />} keys="D D" danger onSelect={() => void notebook.remove(id)}>
        {s.remove}
      </MenuItem>
    </>
  );
}
