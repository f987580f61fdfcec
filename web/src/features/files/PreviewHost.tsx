import { lazy, Suspense, useEffect, useRef } from "react";
import { useSession } from "@/features/session";
import { rowId } from "./paths";
import { closePreview, usePreview } from "./preview";

const PreviewDialog = lazy(() => import("./PreviewDialog"));

/** The file that is looked at, if any. Where a drawer shows the files it must be inside: a dialog beside it would close it. */
export function PreviewHost() {
  const path = usePreview((state) => state.path);
  const id = useSession((state) => state.id);
  // Another session has other files.
  // biome-ignore lint/correctness/useExhaustiveDependencies: says when
  useEffect(() => closePreview, [id]);
  // A dialog without a button that opened it does not give the focus back.
  const last = useRef<{ path: string | null; opener: Element | null }>({ path: null, opener: null });
  useEffect(() => {
    const { path: before, opener } = last.current;
    if (path !== null) {
      last.current = { path, opener: before === null ? usePreview.getState().opener : opener };
      return;
    }
    last.current = { path: null, opener: null };
    if (before === null) return;
    const timer = setTimeout(() => {
      if (document.activeElement !== null && document.activeElement !== document.body) return;
      const row = document.getElementById(rowId(before));
      const back = row ?? (opener?.isConnected ? opener : null);
      if (back instanceof HTMLElement) back.focus();
    }, 30);
    return () => clearTimeout(timer);
  }, [path]);
  if (path === null || id === "") return null;
  return (
    <Suspense>
      <PreviewDialog sessionId={id} path={path} />
    </Suspense>
  );
}
