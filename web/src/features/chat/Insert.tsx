import { CodeXml, Pilcrow } from "lucide-react";
import { memo, useState } from "react";
import { useMay } from "@/features/account/me";
import { useNotebook } from "@/features/notebook/controller";
import { useSessionStore } from "@/features/session";
import { cx } from "@/lib/cx";
import { useStrings } from "./strings";

const button =
  "inline-flex h-6 items-center gap-1 rounded-full border bg-raised px-2.5 text-muted text-xs hover:border-line-strong hover:bg-hover hover:text-ink";

/** The room before an entry: offers a cell or a text when the pointer is there. */
export const Gap = memo(function Gap({ id }: { id: string }) {
  const [open, setOpen] = useState(false);
  const store = useSessionStore();
  const changes = useMay("write");
  const before = () => {
    const { order } = store.get();
    return order[order.indexOf(id) - 1] ?? "";
  };
  return (
    <div
      data-gap={id}
      className="gap relative z-[1] h-3"
      onPointerEnter={() => setOpen(true)}
      onPointerLeave={() => setOpen(false)}
    >
      {open && changes ? (
        <div className="appear -translate-y-1/2 absolute inset-x-0 top-1/2 flex h-6 items-center justify-center gap-1.5 before:absolute before:inset-x-0 before:top-1/2 before:-z-[1] before:h-px before:bg-line-strong">
          <Buttons after={before} />
        </div>
      ) : null}
    </div>
  );
});

function Buttons({ after }: { after: () => string | null }) {
  const s = useStrings();
  const notebook = useNotebook();
  return (
    <>
      <button
        type="button"
        className={button}
        aria-label={s.thread.addCodeHere}
        onClick={() => void notebook.insert("cell", after(), true)}
      >
        <CodeXml className="size-3.5" aria-hidden />
        {s.thread.addCode}
      </button>
      <button
        type="button"
        className={button}
        aria-label={s.thread.addTextHere}
        onClick={() => void notebook.insert("note", after(), true)}
      >
        <Pilcrow className="size-3.5" aria-hidden />
        {s.thread.addText}
      </button>
    </>
  );
}

/** The same at the end of the thread, always there. */
export function InsertRow() {
  if (!useMay("write")) return null;
  return (
    <div className={cx("mt-3 flex items-center justify-center gap-1.5")}>
      <Buttons after={() => null} />
    </div>
  );
}
