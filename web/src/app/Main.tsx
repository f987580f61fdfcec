import { Eye, Unplug } from "lucide-react";
import { type ComponentType, lazy, Suspense, useEffect, useState } from "react";
import { readOnlyEvent, useMay } from "@/features/account/me";
import { Composer } from "@/features/chat/Composer";
import { DropZone } from "@/features/files/DropZone";
import { useSession, useSessionStore } from "@/features/session";
import { cx } from "@/lib/cx";
import { useSettled } from "@/lib/hooks";
import { Button, EmptyState, Skeleton } from "@/ui";
import { ErrorBoundary } from "./ErrorBoundary";
import { Header } from "./Header";
import { useStrings } from "./strings";
import { Welcome } from "./Welcome";

// Messages, cells and outputs are more than half of the page, and an empty
// session shows none. Whoever opens one that is not empty gets them at once,
// everybody else while they read.
let thread: ComponentType | undefined;
const loadThread = () =>
  import("@/features/chat/Thread").then((m) => {
    thread = m.Thread;
    return { default: m.Thread };
  });
const LazyThread = lazy(loadThread);
if (location.pathname !== "/") void loadThread();
else if ("requestIdleCallback" in window) requestIdleCallback(() => void loadThread(), { timeout: 1500 });
else setTimeout(() => void loadThread(), 500);

/** The thread; without waiting, which React does in small steps, where it is here already. */
function Thread() {
  const [Here] = useState<ComponentType>(() => thread ?? LazyThread);
  return <Here />;
}

/** The middle: header, thread, composer. */
export function Main({ onNew }: { onNew: () => void }) {
  const s = useStrings();
  const status = useSession((state) => state.status);
  const error = useSession((state) => state.error);
  const empty = useSession((state) => state.order.length === 0);
  const store = useSessionStore();
  const runs = useMay("execute");
  useEffect(() => {
    if (status === "loading") void loadThread(); // while the session is on its way
  }, [status]);
  return (
    <DropZone>
      <div className="flex h-full min-w-0 flex-col">
        <Header />
        <main id="main" tabIndex={-1} className="relative flex min-h-0 flex-1 flex-col outline-none">
          <Offline />
          <ErrorBoundary>
            {status === "failed" ? (
              error?.status === 404 ? (
                <EmptyState
                  title={s.missing}
                  action={
                    <Button variant="primary" onClick={onNew}>
                      {s.newSession}
                    </Button>
                  }
                >
                  {s.missingDetail}
                </EmptyState>
              ) : (
                <EmptyState title={s.loadFailed} action={<Button onClick={() => store.retry()}>{s.again}</Button>}>
                  {error?.detail} {error?.hint}
                </EmptyState>
              )
            ) : (
              <>
                {status === "loading" ? (
                  <Loading />
                ) : empty ? (
                  <div className="min-h-0 flex-1 overflow-y-auto">
                    <Welcome />
                  </div>
                ) : (
                  <Suspense fallback={<Loading />}>
                    <Thread />
                  </Suspense>
                )}
                {runs ? <Composer /> : <ReadOnly />}
              </>
            )}
          </ErrorBoundary>
        </main>
      </div>
    </DropZone>
  );
}

/** In the place of the composer, for those who may only look. */
function ReadOnly() {
  const s = useStrings();
  // What somebody tries all the same has it say so again.
  const [tries, setTries] = useState(0);
  const [lit, setLit] = useState(false);
  useEffect(() => {
    const again = () => {
      setTries((n) => n + 1);
      setLit(true);
    };
    window.addEventListener(readOnlyEvent, again);
    return () => window.removeEventListener(readOnlyEvent, again);
  }, []);
  useEffect(() => {
    if (tries === 0) return;
    const timer = setTimeout(() => setLit(false), 2500);
    return () => clearTimeout(timer);
  }, [tries]);
  return (
    <div role="status" className="mx-4 mb-4">
      <p
        key={tries} // read out again
        data-tried={tries}
        className={cx(
          "flex items-center justify-center gap-2.5 rounded-lg px-4 py-3 text-sm",
          lit ? "bg-warning-soft font-medium text-warning" : "bg-hover text-muted",
        )}
      >
        <Eye className="size-4 shrink-0" aria-hidden />
        <span>
          {s.readOnly} {s.readOnlyHint}
        </span>
      </p>
    </div>
  );
}

function Loading() {
  const s = useStrings();
  return (
    <div role="status" aria-label={s.loading} className="min-h-0 flex-1 overflow-hidden">
      <div className="mx-auto max-w-208 space-y-6 px-4 py-8 sm:px-8">
        <Skeleton className="ml-auto h-10 w-1/2" />
        <div className="space-y-2.5">
          <Skeleton className="h-4 w-5/6" />
          <Skeleton className="h-4 w-4/6" />
        </div>
        <Skeleton className="h-28 w-full" />
        <Skeleton className="h-48 w-full" />
      </div>
    </div>
  );
}

/** Says that the connection is gone, over the thread so that nothing moves. */
function Offline() {
  const s = useStrings();
  const store = useSessionStore();
  const offline = useSession((state) => state.connection === "offline" && state.status === "ready");
  // A restart of the server is over before anybody could read this.
  const shown = useSettled(offline, 1500) && offline;
  return (
    <div role="status" className="pointer-events-none absolute inset-x-0 top-2 z-20 flex justify-center px-3">
      {shown && (
        <div className="appear pointer-events-auto flex max-w-160 items-center gap-3 rounded-lg border border-warning/40 bg-warning-soft py-1.5 pr-1.5 pl-3 text-sm text-warning shadow-pop">
          <Unplug className="size-4 shrink-0" aria-hidden />
          <span>{s.offline}</span>
          <Button size="sm" variant="ghost" className="text-warning" onClick={() => store.retry()}>
            {s.reconnect}
          </Button>
        </div>
      )}
    </div>
  );
}
