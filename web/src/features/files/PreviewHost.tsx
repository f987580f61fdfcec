import { lazy, Suspense, useEffect } from "react";
import { useSession } from "@/features/session";
import { closePreview, usePreview } from "./preview";

const PreviewDialog = lazy(() => import("./PreviewDialog"));

/** The file that is looked at, if any. Where a drawer shows the files it must be inside: a dialog beside it would close it. */
export function PreviewHost() {
  const path = usePreview((state) => state.path);
  const id = useSession((state) => state.id);
  // Another session has other files.
  // biome-ignore lint/correctness/useExhaustiveDependencies: says when
  useEffect(() => closePreview, [id]);
  if (path === null || id === "") return null;
  return (
    <Suspense>
      <PreviewDialog sessionId={id} path={path} />
    </Suspense>
  );
}
