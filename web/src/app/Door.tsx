import { Dialog } from "radix-ui";
import { lazy, Suspense, useCallback, useEffect, useState } from "react";
import { ApiError, call } from "@/api/client";
import { loadMe } from "@/features/account/me";
import type { Arrival } from "@/features/account/place";
import type { SignInWays } from "@/features/account/types";
import { Button, EmptyState } from "@/ui";
import { Login } from "./Login";
import { useStrings } from "./strings";

const SignIn = lazy(() => import("@/features/account/SignIn"));

/** The way in for who was signed out while he worked: over the page, which stays as it is and is not seen. */
export function DoorOver({ onDone }: { onDone: () => void }) {
  const s = useStrings();
  return (
    <Dialog.Root open>
      <Dialog.Portal>
        <Dialog.Content aria-describedby={undefined} className="fixed inset-0 z-60 bg-sunken outline-none">
          <Dialog.Title className="sr-only">{s.signedOut}</Dialog.Title>
          <Door arrival={null} again onDone={onDone} />
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

/** The way in: by the server's token, or where there are accounts by theirs. */
export function Door({
  arrival,
  again = false,
  onDone,
}: {
  arrival: Arrival | null;
  /** What was begun waits behind it. */
  again?: boolean;
  onDone: () => void;
}) {
  const s = useStrings();
  const [ways, setWays] = useState<SignInWays | "token" | ApiError | undefined>();
  const ask = useCallback(() => {
    setWays(undefined);
    call<SignInWays>("GET", "/v1/sign-in", { outside: true }).then(
      (answer) => setWays(answer.auth === "accounts" ? answer : "token"),
      // Where there is one token, the server tells this to nobody who lacks it.
      (err: unknown) => setWays(err instanceof ApiError && (err.status === 0 || err.status >= 500) ? err : "token"),
    );
  }, []);
  useEffect(ask, [ask]);

  if (ways === undefined) return null;
  if (ways === "token") return <Login refused={arrival?.kind === "token-refused"} again={again} onDone={onDone} />;
  if (ways instanceof ApiError) {
    const Main = again ? "div" : "main"; // over the page, which has one
    return (
      <Main className="h-dvh">
        <EmptyState title={ways.detail} action={<Button onClick={ask}>{s.again}</Button>}>
          {ways.hint}
        </EmptyState>
      </Main>
    );
  }
  return (
    <Suspense fallback={null}>
      <SignIn
        ways={ways}
        again={again}
        failed={arrival?.kind === "sign-in-failed" ? arrival.code : ""}
        // Who it is comes first: for somebody else the page begins anew.
        onDone={() => void loadMe().then(onDone)}
      />
    </Suspense>
  );
}
