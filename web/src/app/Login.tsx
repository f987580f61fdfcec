import { type FormEvent, useId, useRef, useState } from "react";
import { ApiError, call } from "@/api/client";
import { Button } from "@/ui";
import { Wordmark } from "./Mark";
import { useStrings } from "./strings";

/** Asks for the server's token. */
export function Login({ refused, again = false, onDone }: { refused: boolean; again?: boolean; onDone: () => void }) {
  const s = useStrings();
  const id = useId();
  const field = useRef<HTMLInputElement>(null);
  const [message, setMessage] = useState(refused ? s.loginWrong : "");
  const [busy, setBusy] = useState(false);

  const submit = async (e: FormEvent) => {
    e.preventDefault();
    // The whole address will do as well: it is what the server printed.
    const text = field.current?.value.trim() ?? "";
    const token = /[?&]token=([^&#]+)/.exec(text)?.[1];
    const value = token === undefined ? text : decodeURIComponent(token);
    if (value === "") {
      setMessage(s.loginEmpty);
      field.current?.focus();
      return;
    }
    setBusy(true);
    try {
      await call("POST", "/v1/login", { body: { token: value } });
      onDone();
    } catch (err) {
      setMessage(
        err instanceof ApiError && err.status === 401
          ? s.loginWrong
          : err instanceof ApiError
            ? `${err.detail} ${err.hint}`
            : String(err),
      );
      field.current?.select();
    } finally {
      setBusy(false);
    }
  };

  const Main = again ? "div" : "main"; // over the page, which has one
  return (
    <Main className="grid h-dvh place-items-center overflow-auto bg-sunken p-4">
      <form onSubmit={submit} className="w-full max-w-104 rounded-xl border bg-raised p-6 shadow-pop sm:p-8" noValidate>
        <Wordmark />
        <h1 className="mt-6 font-semibold text-xl">{s.loginTitle}</h1>
        {again && <p className="mt-1.5 text-sm">{s.signedOutText}</p>}
        <p className="mt-1.5 text-muted text-sm">{s.loginText}</p>
        <label htmlFor={id} className="mt-5 block font-medium text-sm">
          {s.token}
        </label>
        <input
          ref={field}
          id={id}
          type="password"
          name="token"
          autoComplete="current-password"
          // biome-ignore lint/a11y/noAutofocus: it is all there is to do on this page
          autoFocus
          spellCheck={false}
          aria-invalid={message !== ""}
          aria-describedby={`${id}-message`}
          className="mt-1.5 h-10 w-full rounded-md border border-line-strong bg-surface px-3 font-mono text-sm"
        />
        <p id={`${id}-message`} role="alert" className="min-h-7 pt-1 text-danger text-sm">
          {message}
        </p>
        <Button type="submit" variant="primary" className="mt-1 w-full" busy={busy}>
          {s.loginButton}
        </Button>
      </form>
    </Main>
  );
}
