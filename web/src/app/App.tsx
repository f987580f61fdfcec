import { QueryClientProvider } from "@tanstack/react-query";
import { lazy, Suspense, useCallback, useEffect, useMemo, useState } from "react";
import { useRoute } from "wouter";
import { navigate } from "wouter/use-browser-location";
import { onUnauthenticated } from "@/api/client";
import { currentMe, loadMe } from "@/features/account/me";
import { forgetArrival, useArrival, useSection } from "@/features/account/place";
import { SessionProvider } from "@/features/session";
import { pathOf } from "@/features/session/sessions";
import { draftStore, storeOf, whenAdopted } from "@/features/session/store";
import { madeHere } from "@/features/session/untouched";
import { queryClient } from "@/lib/query";
import { Toaster } from "@/ui/toast";
import { TooltipProvider } from "@/ui/tooltip";
import { ErrorBoundary } from "./ErrorBoundary";
import { Shell } from "./Shell";

const AccountPage = lazy(() => import("@/features/account/AccountPage"));
const Door = lazy(() => import("./Door").then((m) => ({ default: m.Door })));
const Redeem = lazy(() => import("@/features/account/Redeem"));

export function App() {
  return (
    <ErrorBoundary>
      <QueryClientProvider client={queryClient}>
        <TooltipProvider delayDuration={500}>
          <Gate />
          <Toaster />
        </TooltipProvider>
      </QueryClientProvider>
    </ErrorBoundary>
  );
}

/** Shows the page, or how to get in once the server asks who this is. */
function Gate() {
  const arrival = useArrival();
  const section = useSection();
  const [locked, setLocked] = useState(arrival?.kind === "token-refused" || arrival?.kind === "sign-in-failed");
  useEffect(() => {
    void loadMe();
    // Somebody may have given another role meanwhile.
    const back = () => {
      if (currentMe()?.auth === "accounts") void loadMe();
    };
    window.addEventListener("focus", back);
    // Rights that changed refuse what was under way, and nobody has to sign in for that.
    const done = onUnauthenticated(() => void loadMe().then((known) => !known && setLocked(true)));
    return () => {
      done();
      window.removeEventListener("focus", back);
    };
  }, []);
  const enter = () => {
    forgetArrival();
    queryClient.clear();
    setLocked(false);
    void loadMe();
  };

  if (arrival?.kind === "setup" || arrival?.kind === "set-password") {
    return (
      <Suspense fallback={null}>
        <Redeem
          kind={arrival.kind}
          secret={arrival.secret}
          // Whoever was signed in before may have been somebody else.
          onDone={() => location.assign("/")}
          onLeave={() => location.assign("/")}
        />
      </Suspense>
    );
  }
  if (locked) {
    return (
      <Suspense fallback={null}>
        <Door arrival={arrival} onDone={enter} />
      </Suspense>
    );
  }
  if (section) {
    return (
      <Suspense fallback={null}>
        <AccountPage section={section} />
      </Suspense>
    );
  }
  return <Sessions />;
}

function Sessions() {
  const [, route] = useRoute("/s/:id");
  const id = route?.id ?? "";
  // A new draft for each "new session", also when one is open.
  const [draft, setDraft] = useState(0);
  // biome-ignore lint/correctness/useExhaustiveDependencies: draft asks for another one
  const store = useMemo(() => (id === "" ? draftStore() : storeOf(id)), [id, draft]);

  useEffect(
    () =>
      whenAdopted((adopted) => {
        madeHere(adopted);
        // Who has gone elsewhere meanwhile stays there.
        if (location.pathname === "/") navigate(pathOf(adopted));
      }),
    [],
  );
  const onNew = useCallback(() => {
    navigate("/");
    setDraft((n) => n + 1);
  }, []);
  return (
    <SessionProvider store={store}>
      <Shell onNew={onNew} />
    </SessionProvider>
  );
}
