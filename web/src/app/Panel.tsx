import { X } from "lucide-react";
import { lazy, Suspense } from "react";
import { usePhone } from "@/lib/hooks";
import { whenIdle } from "@/lib/idle";
import { IconButton, Skeleton, Tabs } from "@/ui";
import { ErrorBoundary } from "./ErrorBoundary";
import { togglePanel, useLayout } from "./layout";
import { useStrings } from "./strings";

// What the page takes words with comes first; the panel's place is kept meanwhile.
const FilesPanel = lazy(() =>
  whenIdle()
    .then(() => import("@/features/files/FilesPanel"))
    .then((m) => ({ default: m.FilesPanel })),
);
const VariablesPanel = lazy(() =>
  import("@/features/sandbox/VariablesPanel").then((m) => ({ default: m.VariablesPanel })),
);

const UnseenCount = lazy(() =>
  whenIdle()
    .then(() => import("@/features/files/Unseen"))
    .then((m) => ({ default: m.UnseenCount })),
);

/** The right area. */
export function Panel() {
  const s = useStrings();
  const phone = usePhone();
  const tab = useLayout((layout) => layout.tab);
  const waiting = (
    <div className="space-y-3 p-4">
      <Skeleton className="h-4 w-2/3" />
      <Skeleton className="h-4 w-1/2" />
      <Skeleton className="h-4 w-3/5" />
    </div>
  );
  return (
    <Tabs
      label={s.panel}
      value={tab}
      onChange={(next) => useLayout.setState({ tab: next })}
      aside={
        phone && (
          <IconButton label={s.close} onClick={togglePanel} tip={false}>
            <X />
          </IconButton>
        )
      }
      tabs={[
        { value: "files", label: s.files, Content: FilesPanel },
        { value: "variables", label: s.variables, Content: VariablesPanel },
      ].map(({ value, label, Content }) => ({
        value: value as "files" | "variables",
        label:
          value === "files" ? (
            <span className="flex items-center gap-1.5">
              {label}
              <Suspense fallback={null}>
                <UnseenCount />
              </Suspense>
            </span>
          ) : (
            label
          ),
        content: (
          <ErrorBoundary>
            <Suspense fallback={waiting}>
              <Content />
            </Suspense>
          </ErrorBoundary>
        ),
      }))}
    />
  );
}
