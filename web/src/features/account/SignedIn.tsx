import { useEffect } from "react";
import { Button } from "@/ui";
import { loadMe, tellSignedIn } from "./me";
import { Card } from "./SignIn";
import { useStrings } from "./strings";

/** Of a tab that was opened to sign in: the one that asked for it goes on. */
export default function SignedIn({ onDone }: { onDone: () => void }) {
  const s = useStrings();
  useEffect(() => {
    void loadMe().then((known) => known && tellSignedIn());
  }, []);
  return (
    <Card title={s.signedInTitle}>
      <p className="mt-1.5 text-muted text-sm">{s.signedInText}</p>
      <Button className="mt-5 h-10 w-full" onClick={onDone}>
        {s.goOnHere}
      </Button>
    </Card>
  );
}
