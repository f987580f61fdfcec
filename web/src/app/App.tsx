import { QueryClientProvider } from "@tanstack/react-query";
import { useCallback, useEffect, useMemo, useState } from "react";
import { useRoute } from "wouter";
import { navigate } from "wouter/use-browser-location";
import { onUnauthenticated } from "@/api/client";
import { SessionProvider } from "@/features/session";
import { pathOf } from "@/features/session/sessions";
import { draftStore, storeOf, whenAdopted } from "@/features/session/store";
import { madeHere } from "@/features/session/untouched";
import { queryClient } from "@/lib/query";
import { Toaster } from "@/ui/toast";
import { TooltipProvider } from "@/ui/tooltip";
import { ErrorBoundary } from "./ErrorBoundary";
import { Login } from "./Login";
import { Shell } from "./Shell";

// The server puts this behind the address when a token in it was wrong.
const refused = location.hash === "#token-refused";
if (refused) history.replaceState(null, "", location.pathname + location.search);

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

/** Shows the page, or asks for the token once the server does. */
function Gate() {
  const [locked, setLocked] = useState(refused);
  useEffect(() => onUnauthenticated(() => setLocked(true)), []);
  if (locked) {
    return (
      <Login
        refused={refused}
        onDone={() => {
          queryClient.clear();
          setLocked(false);
        }}
      />
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
