// What the parts of account and administration are made of.
import { useQueryClient } from "@tanstack/react-query";
import { Check, Copy, Eye, EyeOff } from "lucide-react";
import { type InputHTMLAttributes, type ReactNode, useEffect, useId, useRef, useState } from "react";
import { ApiError } from "@/api/client";
import { cx } from "@/lib/cx";
import { language } from "@/lib/i18n";
import { Button, Dialog, EmptyState, IconButton, Skeleton, toast } from "@/ui";
import { useStrings } from "./strings";

/** The server's sentence and its hint; for what did not come from there, its own words. */
export function sentence(err: unknown): string {
  if (err instanceof ApiError) return `${err.detail} ${err.hint}`.trim();
  return err instanceof Error ? err.message : String(err);
}

export function formatDate(time: string): string {
  return new Date(time).toLocaleDateString(language(), { dateStyle: "medium" });
}

export function formatTime(time: string): string {
  return new Date(time).toLocaleString(language(), { dateStyle: "short", timeStyle: "medium" });
}

const box = "h-10 w-full rounded-md border border-line-strong bg-surface px-3 text-sm aria-invalid:border-danger";

export interface FieldProps extends Omit<InputHTMLAttributes<HTMLInputElement>, "id"> {
  label: string;
  hint?: string | undefined;
  invalid?: boolean;
}

export function Field({ label, hint, invalid, className, ...rest }: FieldProps) {
  const id = useId();
  return (
    <div className={className}>
      <label htmlFor={id} className="block font-medium text-sm">
        {label}
      </label>
      <input
        id={id}
        spellCheck={false}
        aria-invalid={invalid || undefined}
        aria-describedby={hint ? `${id}-hint` : undefined}
        className={cx(box, "mt-1.5")}
        {...rest}
      />
      {hint && (
        <p id={`${id}-hint`} className="mt-1 text-muted text-xs">
          {hint}
        </p>
      )}
    </div>
  );
}

/** A password, which can be looked at. */
export function PasswordField({ label, hint, invalid, className, ...rest }: FieldProps) {
  const s = useStrings();
  const id = useId();
  const [shown, setShown] = useState(false);
  return (
    <div className={className}>
      <label htmlFor={id} className="block font-medium text-sm">
        {label}
      </label>
      <div className="relative mt-1.5">
        <input
          id={id}
          type={shown ? "text" : "password"}
          spellCheck={false}
          autoCapitalize="none"
          aria-invalid={invalid || undefined}
          aria-describedby={hint ? `${id}-hint` : undefined}
          className={cx(box, "pr-10")}
          {...rest}
        />
        <IconButton
          label={shown ? s.hidePassword : s.showPassword}
          tip={false}
          size="sm"
          className="absolute top-1.5 right-1.5"
          onClick={() => setShown(!shown)}
        >
          {shown ? <EyeOff /> : <Eye />}
        </IconButton>
      </div>
      {hint && (
        <p id={`${id}-hint`} className="mt-1 text-muted text-xs">
          {hint}
        </p>
      )}
    </div>
  );
}

/** Says what is wrong with a form; its place is kept so that nothing jumps. */
export function Complaint({ text, className }: { text: string; className?: string }) {
  return (
    <p role="alert" className={cx("min-h-6 pt-1 text-danger text-sm", className)}>
      {text}
    </p>
  );
}

/** Text to copy, such as a key or a link. */
export function CopyLine({
  label,
  text,
  copy,
  focus,
  onCopied,
}: {
  label: string;
  text: string;
  copy?: string;
  /** It is what its dialog is about. */
  focus?: boolean;
  onCopied?: () => void;
}) {
  const s = useStrings();
  const [copied, setCopied] = useState(false);
  const field = useRef<HTMLTextAreaElement>(null);
  useFirstFocus(() => (focus ? field.current : null));
  const put = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
      onCopied?.();
    } catch {
      field.current?.focus(); // which selects it: without TLS a page may not copy
    }
  };
  return (
    <div className="flex items-start gap-2">
      <textarea
        ref={field}
        readOnly
        aria-label={label}
        value={text}
        rows={3}
        onFocus={(e) => e.currentTarget.select()}
        onCopy={onCopied}
        className="field-sizing-content w-full min-w-0 flex-1 resize-none break-all rounded-md border border-line-strong bg-sunken px-3 py-2 font-mono text-xs leading-5"
      />
      <IconButton label={copied ? s.copied : (copy ?? s.copy)} variant="plain" onClick={() => void put()}>
        {copied ? <Check className="text-success" /> : <Copy />}
      </IconButton>
    </div>
  );
}

/** Gives something in a dialog the focus once the dialog has noted who had it before. */
function useFirstFocus(target: () => HTMLElement | null): void {
  const latest = useRef(target);
  useEffect(() => {
    const timer = setTimeout(() => latest.current()?.focus());
    return () => clearTimeout(timer);
  }, []);
}

/** Head and body of a section. */
export function Section({
  title,
  text,
  action,
  children,
}: {
  title: string;
  text: string;
  action?: ReactNode;
  children: ReactNode;
}) {
  return (
    <>
      <div className="flex flex-wrap items-start justify-between gap-x-4 gap-y-3">
        <div className="min-w-0 flex-1 basis-72">
          <h1 className="font-semibold text-xl tracking-[-0.01em]">{title}</h1>
          <p className="mt-1 max-w-[68ch] text-muted text-sm">{text}</p>
        </div>
        {action}
      </div>
      <div className="mt-6">{children}</div>
    </>
  );
}

/** A list longer than this has a field to find something in it. */
const findFrom = 5;

/** Shows what has all the words somewhere in its text; the field is there for long lists, and while it is used. */
export function Found<T>({
  list,
  textOf,
  children,
}: {
  list: readonly T[];
  textOf: (one: T) => string;
  children: (found: T[]) => ReactNode;
}) {
  const s = useStrings();
  const [query, setQuery] = useState("");
  const words = query.toLowerCase().split(/\s+/);
  const found = list.filter((one) => {
    const text = textOf(one).toLowerCase();
    return words.every((word) => text.includes(word));
  });
  return (
    <>
      {(list.length >= findFrom || query !== "") && (
        <search className="mb-3 block">
          <input
            type="search"
            aria-label={s.find}
            placeholder={s.find}
            value={query}
            onChange={(e) => setQuery(e.target.value)}
            spellCheck={false}
            className="h-8.5 w-full rounded-md border border-line-strong bg-raised px-2.5 text-sm sm:w-72"
          />
        </search>
      )}
      {found.length === 0 && list.length > 0 ? (
        <p className="rounded-lg border bg-raised px-4 py-6 text-center text-muted text-sm">{s.nothingFound}</p>
      ) : (
        children(found)
      )}
    </>
  );
}

/** A list of things in a frame, one below the other. */
export function Rows({ label, children }: { label: string; children: ReactNode }) {
  return (
    <ul aria-label={label} className="divide-y overflow-hidden rounded-lg border bg-raised">
      {children}
    </ul>
  );
}

export function Row({ children, dim }: { children: ReactNode; dim?: boolean }) {
  return (
    <li className={cx("flex flex-wrap items-center gap-x-4 gap-y-2 px-4 py-3", dim && "bg-sunken/60")}>{children}</li>
  );
}

/** Small facts in one line, with points between. */
export function Facts({ facts }: { facts: ReactNode[] }) {
  const shown = facts.filter((fact) => fact !== "" && fact !== 0 && fact !== false && fact !== undefined);
  return (
    <p className="mt-0.5 flex flex-wrap gap-x-1.5 text-muted text-xs">
      {shown.map((fact, i) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: the order is fixed
        <span key={i} className="flex gap-x-1.5">
          {fact}
          {i < shown.length - 1 && <span aria-hidden>·</span>}
        </span>
      ))}
    </p>
  );
}

export interface Loaded<T> {
  data: T | undefined;
  error: unknown;
  isPending: boolean;
  refetch: () => unknown;
}

/** What is there of a query: its data, its place while it is on its way, or why it did not come. */
export function Shown<T>({ query, children }: { query: Loaded<T>; children: (data: T) => ReactNode }) {
  const s = useStrings();
  if (query.data !== undefined) return children(query.data);
  if (query.isPending) {
    return (
      <div role="status" aria-label={s.loading} className="space-y-3 rounded-lg border bg-raised p-4">
        {[60, 80, 45].map((width) => (
          <Skeleton key={width} className="h-5" style={{ width: `${width}%` }} />
        ))}
      </div>
    );
  }
  return (
    <div className="rounded-lg border bg-raised">
      <EmptyState
        title={query.error instanceof ApiError ? query.error.detail : s.again}
        action={<Button onClick={() => query.refetch()}>{s.again}</Button>}
      >
        {query.error instanceof ApiError ? query.error.hint : sentence(query.error)}
      </EmptyState>
    </div>
  );
}

/** A form in a dialog: sends, says what went wrong, closes when it went well. */
export function FormDialog({
  title,
  description,
  confirm,
  size,
  onSubmit,
  onClose,
  children,
}: {
  title: string;
  description?: string;
  confirm: string;
  size?: "sm" | "md";
  /** A text it gives is what is wrong; so is what it throws. */
  onSubmit: (data: FormData) => Promise<string | undefined> | string | undefined;
  onClose: () => void;
  children: ReactNode;
}) {
  const s = useStrings();
  const id = useId();
  const [busy, setBusy] = useState(false);
  const [wrong, setWrong] = useState("");
  const form = useRef<HTMLFormElement>(null);
  useFirstFocus(() => form.current?.querySelector<HTMLElement>("input:not([type=hidden]), select") ?? null);
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      title={title}
      {...(description ? { description } : {})}
      {...(size ? { size } : {})}
      footer={
        <>
          <Button onClick={onClose}>{s.cancel}</Button>
          <Button type="submit" form={id} variant="primary" busy={busy}>
            {confirm}
          </Button>
        </>
      }
    >
      <form
        ref={form}
        id={id}
        noValidate
        className="space-y-4 pt-1"
        onSubmit={async (e) => {
          e.preventDefault();
          setBusy(true);
          setWrong("");
          try {
            const complaint = await onSubmit(new FormData(e.currentTarget));
            if (complaint) setWrong(complaint);
          } catch (err) {
            setWrong(sentence(err));
          } finally {
            setBusy(false);
          }
        }}
      >
        {children}
        <Complaint text={wrong} className="-mb-2" />
      </form>
    </Dialog>
  );
}

/** Has lists asked for again after a change; what fails is told. */
export function useChange(...keys: string[]): (work: () => Promise<unknown>, done?: string) => Promise<boolean> {
  const client = useQueryClient();
  return async (work, done) => {
    try {
      await work();
      if (done) toast.success(done);
      return true;
    } catch (err) {
      toast.failure(err);
      return false;
    } finally {
      for (const key of keys) void client.invalidateQueries({ queryKey: [key] });
    }
  };
}

export const text = (data: FormData, name: string) => String(data.get(name) ?? "").trim();
