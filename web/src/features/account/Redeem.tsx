import { type FormEvent, useState } from "react";
import { ApiError, call } from "@/api/client";
import { Button } from "@/ui";
import { Complaint, Field, PasswordField, sentence, text } from "./parts";
import { Card } from "./SignIn";
import { useStrings } from "./strings";

/** What a link is for: the first user, or a password. */
export default function Redeem({
  kind,
  secret,
  onDone,
  onLeave,
}: {
  kind: "setup" | "set-password";
  secret: string;
  onDone: () => void;
  onLeave: () => void;
}) {
  const s = useStrings();
  const setup = kind === "setup";
  const [wrong, setWrong] = useState("");
  const [over, setOver] = useState(false);
  const [busy, setBusy] = useState(false);

  const submit = async (e: FormEvent<HTMLFormElement>) => {
    e.preventDefault();
    const data = new FormData(e.currentTarget);
    const password = String(data.get("password") ?? "");
    if (setup && text(data, "email") === "") {
      setWrong(s.emailMissing);
      return;
    }
    if ([...password].length < 10) {
      setWrong(s.passwordShort);
      return;
    }
    setBusy(true);
    setWrong("");
    try {
      const first = setup
        ? { email: text(data, "email"), name: text(data, "name"), organisation: text(data, "organisation") }
        : {};
      await call("POST", "/v1/sign-in/link", { body: { secret, password, ...first } });
      onDone();
    } catch (err) {
      setWrong(sentence(err));
      setOver(err instanceof ApiError && err.code === "link-invalid");
    } finally {
      setBusy(false);
    }
  };

  return (
    <Card title={setup ? s.setupTitle : s.setTitle}>
      <p className="mt-1.5 text-muted text-sm">{setup ? s.setupText : s.setText}</p>
      <form onSubmit={submit} noValidate className="mt-5 space-y-3.5">
        {setup && (
          <>
            <Field label={s.email} name="email" type="email" autoComplete="username" autoCapitalize="none" autoFocus />
            <Field label={s.name} name="name" autoComplete="name" />
            <Field label={s.organisation} name="organisation" autoComplete="organization" placeholder="Default" />
          </>
        )}
        <PasswordField
          label={s.password}
          name="password"
          autoComplete="new-password"
          hint={s.passwordRule}
          autoFocus={!setup}
          invalid={wrong !== "" && !over}
        />
        <Complaint text={wrong} className="min-h-7" />
        {over ? (
          <Button variant="primary" className="h-10 w-full" onClick={onLeave}>
            {s.toSignIn}
          </Button>
        ) : (
          <Button type="submit" variant="primary" className="h-10 w-full" busy={busy}>
            {setup ? s.setupButton : s.setButton}
          </Button>
        )}
      </form>
    </Card>
  );
}
