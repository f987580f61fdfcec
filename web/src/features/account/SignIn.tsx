import { ExternalLink, KeyRound } from "lucide-react";
import { type FormEvent, useRef, useState } from "react";
import { call, withQuery } from "@/api/client";
import { Wordmark } from "@/app/Mark";
import { Button } from "@/ui";
import { failedText } from "./failed";
import { Complaint, Field, PasswordField, sentence, text } from "./parts";
import { elsewhere, sectionOf } from "./place";
import { useStrings } from "./strings";
import type { SignInWays } from "./types";

/** The way in where there are accounts. */
export default function SignIn({
  ways,
  again,
  failed,
  onDone,
}: {
  ways: SignInWays;
  /** What was begun waits behind this: the tab must not go elsewhere. */
  again: boolean;
  /** The code with which a provider's sign-in ended. */
  failed: string;
  onDone: () => void;
}) {
  const s = useStrings();
  const form = useRef<HTMLFormElement>(null);
  const [wrong, setWrong] = useState("");
  const [busy, setBusy] = useState(false);
  const providers = ways.providers ?? [];

  const focus = (name: string) => form.current?.querySelector<HTMLInputElement>(`[name=${name}]`)?.focus();
  const submit = async (e: FormEvent<HTMLFormElement>) => {
    e.preventDefault();
    const data = new FormData(e.currentTarget);
    const email = text(data, "email");
    const password = String(data.get("password") ?? "");
    if (email === "" || password === "") {
      setWrong(email === "" ? s.emailMissing : s.passwordMissing);
      focus(email === "" ? "email" : "password");
      return;
    }
    setBusy(true);
    setWrong("");
    try {
      await call("POST", "/v1/login", { body: { email, password } });
      onDone();
    } catch (err) {
      setWrong(sentence(err));
      focus("password");
    } finally {
      setBusy(false);
    }
  };

  return (
    <Card title={again ? s.againTitle : s.signInTitle} over={again}>
      {again && <p className="mt-1.5 text-muted text-sm">{s.againText}</p>}
      {failed !== "" && (
        <div role="alert" className="mt-4 rounded-lg bg-danger-soft px-3.5 py-2.5 text-danger text-sm">
          <p className="font-medium">{s.failedTitle}</p>
          <p>{failedText(s, failed)}</p>
        </div>
      )}
      {ways.setup && <p className="mt-4 rounded-lg bg-accent-soft px-3.5 py-2.5 text-accent text-sm">{s.noUsers}</p>}
      {providers.length > 0 && (
        <ul className="mt-5 space-y-2">
          {providers.map((provider) => (
            <li key={provider.name}>
              <a
                href={withQuery(provider.url, {
                  return: again ? `/${elsewhere}` : location.pathname + (sectionOf(location.hash) ? location.hash : ""),
                })}
                {...(again ? { target: "_blank", rel: "noopener" } : {})}
                className="flex h-10 w-full items-center justify-center gap-2 rounded-md border border-line-strong bg-raised px-3.5 font-medium text-sm transition-colors hover:bg-hover"
              >
                <KeyRound className="size-4 text-muted" aria-hidden />
                {s.signInWith(provider.title)}
                {again && <ExternalLink className="size-3.5 text-muted" aria-label={s.newTab} role="img" />}
              </a>
            </li>
          ))}
        </ul>
      )}
      {providers.length > 0 && ways.password && (
        <p className="mt-5 flex items-center gap-3 text-muted text-xs before:h-px before:flex-1 before:bg-line after:h-px after:flex-1 after:bg-line">
          {s.or}
        </p>
      )}
      {ways.password && (
        <form ref={form} onSubmit={submit} noValidate className="mt-4">
          <Field
            label={s.email}
            name="email"
            type="email"
            autoComplete="username"
            autoCapitalize="none"
            autoFocus
            invalid={wrong !== ""}
          />
          <PasswordField
            label={s.password}
            name="password"
            autoComplete="current-password"
            className="mt-3.5"
            invalid={wrong !== ""}
          />
          <Complaint text={wrong} className="min-h-7" />
          <Button type="submit" variant="primary" className="mt-1 h-10 w-full" busy={busy}>
            {s.signIn}
          </Button>
          <p className="mt-4 text-muted text-xs">{s.forgotten}</p>
        </form>
      )}
    </Card>
  );
}

/** One card in the middle of the window. */
export function Card({
  title,
  over,
  children,
}: {
  title: string;
  /** Lies over the page, which has its own main part. */
  over?: boolean;
  children: React.ReactNode;
}) {
  const Main = over ? "div" : "main";
  return (
    <Main className="grid h-dvh place-items-center overflow-auto bg-sunken p-4">
      <div className="w-full max-w-104 rounded-xl border bg-raised p-6 shadow-pop sm:p-8">
        <Wordmark />
        <h1 className="mt-6 font-semibold text-xl">{title}</h1>
        {children}
      </div>
    </Main>
  );
}
