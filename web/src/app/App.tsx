import { QueryClientProvider } from "@tanstack/react-query";
import { lazy, Suspense, useCallback, useEffect, useMemo, useState } from "react";
import { useRoute } from "wouter";
import { navigate } from "wouter/use-browser-location";
import { onSignedOut, signedIn } from "@/api/client";
import { currentMe, loadMe, onOtherTab, tellSignedIn, useSettledPerson } from "@/features/account/me";
import { forgetArrival, useArrival, useSection } from "@/features/account/place";
import { SessionProvider } from "@/features/session";
import { pathOf } from "@/features/session/sessions";
import { draftStore, storeOf, whenAdopted } from "@/features/session/store";
import { madeHere } from "@/features/session/untouched";
import { queryClient } from "@/lib/query";
import { Toaster, toast } from "@/ui/toast";
import { TooltipProvider } from "@/ui/tooltip";
import { ErrorBoundary } from "./ErrorBoundary";
import { Shell } from "./Shell";

const AccountPage = lazy(() => import("@/features/account/AccountPage"));
const Door = lazy(() => import("./Door").then((m) => ({ default: m.Door })));
const DoorOver = lazy(() => import("./Door").then((m) => ({ default: m.DoorOver })));
const Redeem = lazy(() => import("@/features/account/Redeem"));
const SignedIn = lazy(() => import("@/features/account/SignedIn"));

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
  const settled = useSettledPerson();
  const [locked, setLocked] = useState(arrival?.kind === "token-refused" || arrival?.kind === "sign-in-failed");
  // Somebody was here: what he did stays, out of sight, until he is back.
  const over = locked && currentMe() !== undefined;
  const enter = useCallback(() => {
    forgetArrival();
    tellSignedIn();
    setLocked(false);
    signedIn();
    void queryClient.invalidateQueries();
    void loadMe();
  }, []);
  useEffect(() => {
    const look = () =>
      loadMe().then((known) => {
        // Rights that changed refuse what was under way, and nobody has to sign in for that.
        if (known) signedIn();
        else {
          toast.clear();
          setLocked(true);
        }
        return known;
      });
    void look();
    // Somebody may have given another role meanwhile.
    const back = () => {
      if (currentMe()?.auth === "accounts") void look();
    };
    // What the browser kept of this page may be of somebody who is gone.
    const shown = (event: PageTransitionEvent) => {
      if (event.persisted && (currentMe()?.auth ?? "accounts") === "accounts") location.reload();
    };
    window.addEventListener("focus", back);
    window.addEventListener("pageshow", shown);
    const done = onSignedOut(() => void look());
    const alone = onOtherTab(() => void look().then((known) => known && setLocked(false)));
    return () => {
      done();
      alone();
      window.removeEventListener("focus", back);
      window.removeEventListener("pageshow", shown);
    };
  }, []);

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
  if (arrival?.kind === "signed-in" && !locked) {
    return (
      <Suspense fallback={null}>
        <SignedIn onDone={forgetArrival} />
      </Suspense>
    );
  }
  return (
    <>
      {settled && (!locked || over) ? (
        section ? (
          <Suspense fallback={null}>
            <AccountPage section={section} />
          </Suspense>
        ) : (
          <Sessions />
        )
      ) : null}
      {locked ? (
        <Suspense fallback={null}>
          {over ? <DoorOver onDone={enter} /> : <Door arrival={arrival} onDone={enter} />}
        </Suspense>
      ) : null}
    </>
  );
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
