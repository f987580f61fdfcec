import { Eye, Upload } from "lucide-react";
import { lazy, type ReactNode, Suspense, useEffect, useState } from "react";
import { currentMe, may, mayChange, useMay } from "@/features/account/me";
import { useActions, useSession } from "@/features/session";
import { Button, Dialog } from "@/ui";
import { addFiles, pastedFiles, useNotebookQuestion } from "./add";
import { setDropTarget, useDropTarget } from "./drag";
import { PreviewHost } from "./PreviewHost";
import { usePanel } from "./panel";
import { uploadDir } from "./paths";
import { useStrings } from "./strings";
import { useTransfers } from "./transfers";

const TransferList = lazy(() => import("./TransferList").then((m) => ({ default: m.TransferList })));

const bringsFiles = (event: { dataTransfer: DataTransfer | null }) =>
  event.dataTransfer?.types.includes("Files") ?? false;

/** Takes files that are dropped or pasted anywhere on the page, and shows what floats above it. */
export function DropZone({ children }: { children: ReactNode }) {
  const actions = useActions();
  const [over, setOver] = useState(false);
  const previewed = usePanel((panel) => panel.previews > 0);

  useEffect(() => {
    const end = () => {
      setOver(false);
      setDropTarget(null);
    };
    const dragOver = (event: DragEvent) => {
      if (!bringsFiles(event)) return;
      // A row of the tree under the pointer has taken it, and said which folder it is.
      if (!event.defaultPrevented) setDropTarget(null);
      event.preventDefault(); // or the browser would open the file and leave the page
      if (event.dataTransfer) event.dataTransfer.dropEffect = may(currentMe(), "write") ? "copy" : "none";
      setOver(true);
    };
    // Leaving one element is entering the next; only out of the window is there none.
    const leave = (event: DragEvent) => event.relatedTarget === null && end();
    const drop = (event: DragEvent) => {
      const taken = event.defaultPrevented;
      end();
      if (!bringsFiles(event) || !event.dataTransfer) return;
      event.preventDefault();
      if (!taken) void addFiles(actions, event.dataTransfer.items, uploadDir, "drop");
    };
    const paste = (event: ClipboardEvent) => {
      if (event.defaultPrevented || !event.clipboardData?.files.length) return;
      // Copied cells of a spreadsheet bring a picture of themselves: in a text
      // field the text is meant.
      const field = event.target instanceof Element && event.target.closest("input, textarea, [contenteditable]");
      if (field && event.clipboardData.types.includes("text/plain")) return;
      event.preventDefault();
      if (mayChange()) void addFiles(actions, pastedFiles(event.clipboardData), uploadDir, "paste");
    };
    window.addEventListener("dragover", dragOver);
    window.addEventListener("dragleave", leave);
    window.addEventListener("drop", drop);
    window.addEventListener("dragend", end);
    window.addEventListener("paste", paste);
    return () => {
      window.removeEventListener("dragover", dragOver);
      window.removeEventListener("dragleave", leave);
      window.removeEventListener("drop", drop);
      window.removeEventListener("dragend", end);
      window.removeEventListener("paste", paste);
    };
  }, [actions]);

  return (
    <>
      {children}
      {over && <Overlay />}
      <FloatingTransfers />
      <NotebookDialog />
      {!previewed && <PreviewHost />}
    </>
  );
}

function Overlay() {
  const s = useStrings();
  const dir = useDropTarget((t) => t.dir) ?? uploadDir;
  const changes = useMay("write");
  return (
    // Lets the pointer through: what is below says where the files go.
    <div className="pointer-events-none fixed inset-0 z-50 p-3">
      <div className="flex h-full items-center justify-center rounded-2xl border-2 border-accent border-dashed bg-accent/8">
        <div className="flex items-center gap-3 rounded-xl border bg-raised px-5 py-4 shadow-pop" role="status">
          {changes ? (
            <Upload aria-hidden className="size-6 text-accent" />
          ) : (
            <Eye aria-hidden className="size-6 text-muted" />
          )}
          <div>
            <p className="font-medium">{changes ? s.dropHere : s.readOnly}</p>
            <p className="text-muted text-sm">{changes ? s.dropInto(dir) : s.readOnlyText}</p>
          </div>
        </div>
      </div>
    </div>
  );
}

/** The uploads, where no panel shows them. */
function FloatingTransfers() {
  const id = useSession((state) => state.id);
  const shown = usePanel((panel) => panel.count > 0);
  const transfers = useTransfers(id);
  if (shown || !transfers.some((t) => !t.hidden && t.status !== "interrupted")) return null;
  return (
    <Suspense>
      <TransferList
        sessionId={id}
        className="fixed top-14 right-3 z-30 max-h-[50dvh] w-[min(22rem,calc(100vw-1.5rem))] overflow-hidden rounded-xl border shadow-pop"
      />
    </Suspense>
  );
}

function NotebookDialog() {
  const s = useStrings();
  const asked = useNotebookQuestion((q) => q.asked);
  if (!asked) return null;
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && asked.answer("none")}
      title={s.notebookTitle(asked.file.name)}
      description={s.notebookText}
      footer={
        <>
          <Button onClick={() => asked.answer("file")}>{s.keepFile}</Button>
          <Button variant="primary" onClick={() => asked.answer("session")}>
            {s.openSession}
          </Button>
        </>
      }
    />
  );
}
