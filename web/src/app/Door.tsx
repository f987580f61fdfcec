import { lazy, Suspense, useEffect, useState } from "react";
import { call } from "@/api/client";
import { currentMe, loadMe } from "@/features/account/me";
import type { Arrival } from "@/features/account/place";
import type { SignInWays } from "@/features/account/types";
import { Login } from "./Login";

const SignIn = lazy(() => import("@/features/account/SignIn"));

/** The way in: by the server's token, or where there are accounts by theirs. */
export function Door({ arrival, onDone }: { arrival: Arrival | null; onDone: () => void }) {
  // null: where there is one token, the server tells this to nobody who lacks it.
  const [ways, setWays] = useState<SignInWays | null | undefined>();
  useEffect(() => {
    let shown = true;
    call<SignInWays>("GET", "/v1/sign-in").then(
      (answer) => shown && setWays(answer.auth === "accounts" ? answer : null),
      () => shown && setWays(null),
    );
    return () => {
      shown = false;
    };
  }, []);
  if (ways === undefined) return null;
  if (ways === null) return <Login refused={arrival?.kind === "token-refused"} onDone={onDone} />;
  return (
    <Suspense fallback={null}>
      <SignIn
        ways={ways}
        failed={arrival?.kind === "sign-in-failed" ? arrival.code : ""}
        onDone={() => {
          const before = currentMe()?.user_id;
          void loadMe().then(() => {
            // What is on the page belongs to whoever was here before.
            if (before !== undefined && before !== currentMe()?.user_id) location.assign("/");
            else onDone();
          });
        }}
      />
    </Suspense>
  );
}
