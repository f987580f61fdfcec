import { useState } from "react";
import { call } from "@/api/client";
import { Button, Dialog, Select } from "@/ui";
import { type Life, lives } from "./keys";
import { CopyLine, Field, FormDialog, text } from "./parts";
import { byArea, curlExample, offered } from "./scopes";
import { useStrings } from "./strings";
import type { Me, NewKey } from "./types";

/** Asks what a key is for, what it may do, and for how long. */
export function NewKeyDialog({
  me,
  scopes,
  onClose,
  onMade,
}: {
  me: Me;
  /** All that there are. */
  scopes: readonly string[];
  onClose: () => void;
  onMade: (key: NewKey) => void;
}) {
  const s = useStrings();
  const [some, setSome] = useState(false);
  const [life, setLife] = useState<Life>("quarter");
  const mine = offered(scopes, me.may ?? []);
  const role = me.organisation?.role;

  return (
    <FormDialog
      title={s.newKey}
      confirm={s.makeKey}
      size="md"
      onClose={onClose}
      onSubmit={async (data) => {
        const name = text(data, "name");
        if (name === "") return s.keyNameMissing;
        const chosen = data.getAll("scope").map(String);
        if (some && chosen.length === 0) return s.scopesEmpty;
        const made = await call<NewKey>("POST", "/v1/keys", {
          body: { name, expires_ms: lives[life], ...(some ? { scopes: chosen } : {}) },
        });
        onMade(made);
        return undefined;
      }}
    >
      <Field label={s.keyName} name="name" hint={s.keyNameHint} maxLength={200} autoComplete="off" />
      <fieldset>
        <legend className="font-medium text-sm">{s.rights}</legend>
        <div className="mt-1.5 space-y-1.5">
          {[false, true].map((value) => (
            <label key={String(value)} className="flex items-center gap-2 text-sm">
              <input
                type="radio"
                name="rights"
                checked={some === value}
                onChange={() => setSome(value)}
                className="size-4 accent-accent"
              />
              {value ? s.rightsSome : s.rightsAll}
            </label>
          ))}
        </div>
        {some && (
          <div className="mt-2.5 divide-y rounded-lg border bg-surface px-3">
            {byArea(mine).map(({ area, scopes }) => (
              <div key={area} className="flex flex-wrap items-center gap-x-4 gap-y-1 py-2">
                <span className="w-full text-sm sm:w-40">
                  {Object.hasOwn(s.areas, area) ? s.areas[area as keyof typeof s.areas] : area}
                </span>
                {scopes.map((scope) => (
                  <label key={scope} className="flex items-center gap-1.5 text-sm" title={scope}>
                    <input type="checkbox" name="scope" value={scope} className="size-4 accent-accent" />
                    {what(s, scope)}
                  </label>
                ))}
              </div>
            ))}
          </div>
        )}
        {some && role && mine.length < scopes.length && (
          <p className="mt-1.5 text-muted text-xs">{s.rightsHidden(s.roles[role])}</p>
        )}
      </fieldset>
      <div className="flex items-center justify-between gap-3">
        <span className="font-medium text-sm">{s.validFor}</span>
        <Select
          label={s.validFor}
          value={life}
          onChange={setLife}
          options={(Object.keys(lives) as Life[]).map((value) => ({ value, label: s.lives[value] }))}
        />
      </div>
    </FormDialog>
  );
}

function what(s: ReturnType<typeof useStrings>, scope: string): string {
  const name = scope.split(":")[1] ?? scope;
  return Object.hasOwn(s.whats, name) ? s.whats[name as keyof typeof s.whats] : name;
}

/** The only time that a key is shown; who is about to leave without it is asked once. */
export function KeySecret({ made, onClose }: { made: NewKey; onClose: () => void }) {
  const s = useStrings();
  const [copied, setCopied] = useState(false);
  const [warned, setWarned] = useState(false);
  return (
    <Dialog
      open
      onOpenChange={() => (copied || warned ? onClose() : setWarned(true))}
      title={s.secretTitle}
      description={s.secretText}
      size="md"
      footer={
        <Button variant="primary" onClick={onClose}>
          {s.done}
        </Button>
      }
    >
      <div className="space-y-4 pt-1">
        {warned && !copied && (
          <p role="alert" className="rounded-lg bg-warning-soft px-3.5 py-2.5 text-sm text-warning">
            {s.secretWarning}
          </p>
        )}
        <CopyLine label={s.secret} text={made.secret} focus onCopied={() => setCopied(true)} />
        <div>
          <p className="mb-1.5 text-sm">{s.example}</p>
          <CopyLine
            label={s.example}
            copy={s.copyExample}
            text={curlExample(location.origin, made.secret, made.scopes)}
            onCopied={() => setCopied(true)}
          />
        </div>
      </div>
    </Dialog>
  );
}
