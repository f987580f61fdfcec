import { useQuery } from "@tanstack/react-query";
import { LogOut, MonitorSmartphone } from "lucide-react";
import { useState } from "react";
import { call } from "@/api/client";
import { formatAgo } from "@/lib/format";
import { Badge, Button, ConfirmDialog, Select, toast } from "@/ui";
import { browserName } from "./agent";
import { signOut } from "./leave";
import { Facts, FormDialog, formatDate, PasswordField, Row, Rows, Section, Shown, useChange } from "./parts";
import { useStrings } from "./strings";
import type { BrowserLogin, Me } from "./types";

export default function Profile({ me }: { me: Me }) {
  const s = useStrings();
  const [asking, setAsking] = useState(false);
  const [changing, setChanging] = useState(false);
  const organisations = me.organisations ?? [];
  const leave = (everywhere: boolean) => void signOut(everywhere).catch((err: unknown) => toast.failure(err));

  return (
    <Section
      title={s.profile}
      text={s.profileText}
      action={
        <Button onClick={() => leave(false)}>
          <LogOut className="size-4" aria-hidden />
          {s.signOut}
        </Button>
      }
    >
      <Rows label={s.profile}>
        <Row>
          <div className="min-w-0 flex-1">
            <p className="flex flex-wrap items-center gap-2 font-medium">
              {me.name}
              {me.operator && <Badge tone="accent">{s.operator}</Badge>}
            </p>
            <p className="break-all text-muted text-sm">{me.email}</p>
          </div>
          {me.password && <Button onClick={() => setChanging(true)}>{s.changePassword}</Button>}
        </Row>
        <Row>
          <div className="min-w-0 flex-1 basis-64">
            <p className="text-sm">{s.actIn}</p>
            <p className="text-muted text-xs">{organisations.length > 1 ? s.actInText : s.oneOrganisation}</p>
          </div>
          {organisations.length > 1 ? (
            <Select
              label={s.actIn}
              value={me.organisation?.organisation_id ?? ""}
              onChange={(organisation_id) =>
                void call("POST", "/v1/me/organisation", { body: { organisation_id } })
                  // All that is shown belongs to the organisation of before.
                  .then(() => location.assign("/"))
                  .catch((err: unknown) => toast.failure(err))
              }
              options={organisations.map((m) => ({
                value: m.organisation_id,
                label: `${m.name} (${s.roles[m.role]})`,
              }))}
            />
          ) : (
            me.organisation && (
              <p className="text-sm">
                {me.organisation.name} <Badge>{s.roles[me.organisation.role]}</Badge>
              </p>
            )
          )}
        </Row>
      </Rows>
      {!me.password && <p className="mt-2 text-muted text-xs">{s.noPassword}</p>}
      <Browsers onEverywhere={() => setAsking(true)} />
      {changing && <ChangePassword me={me} onClose={() => setChanging(false)} />}
      <ConfirmDialog
        open={asking}
        onOpenChange={setAsking}
        title={s.everywhereTitle}
        description={s.everywhereText}
        confirm={s.everywhere}
        danger
        onConfirm={() => leave(true)}
      />
    </Section>
  );
}

function Browsers({ onEverywhere }: { onEverywhere: () => void }) {
  const s = useStrings();
  const change = useChange("logins");
  const list = useQuery({
    queryKey: ["logins"],
    queryFn: ({ signal }) => call<{ logins: BrowserLogin[] | null }>("GET", "/v1/me/logins", { signal }),
  });
  return (
    <section className="mt-8" aria-labelledby="browsers">
      <div className="mb-3 flex flex-wrap items-center justify-between gap-2">
        <h2 id="browsers" className="font-semibold text-base">
          {s.browsers}
        </h2>
        <Button size="sm" onClick={onEverywhere}>
          {s.everywhere}
        </Button>
      </div>
      <Shown query={list}>
        {(data) => (
          <Rows label={s.browsers}>
            {(data.logins ?? []).map((login) => (
              <Row key={login.id}>
                <MonitorSmartphone className="size-5 shrink-0 text-muted" strokeWidth={1.75} aria-hidden />
                <div className="min-w-0 flex-1">
                  <p className="flex flex-wrap items-center gap-2 text-sm">
                    {browserName(login.agent)}
                    {login.current && <Badge tone="success">{s.thisBrowser}</Badge>}
                  </p>
                  <Facts
                    facts={[
                      login.address,
                      s.signedIn(formatAgo(login.created_at)),
                      s.seen(formatAgo(login.last_seen_at)),
                      s.expires(formatDate(login.expires_at)),
                    ]}
                  />
                </div>
                {!login.current && (
                  <Button
                    size="sm"
                    aria-label={s.endLoginOf(browserName(login.agent))}
                    onClick={() => void change(() => call("DELETE", `/v1/me/logins/${encodeURIComponent(login.id)}`))}
                  >
                    {s.endLogin}
                  </Button>
                )}
              </Row>
            ))}
          </Rows>
        )}
      </Shown>
    </section>
  );
}

function ChangePassword({ me, onClose }: { me: Me; onClose: () => void }) {
  const s = useStrings();
  return (
    <FormDialog
      title={s.changePassword}
      description={s.passwordText}
      confirm={s.changePassword}
      onClose={onClose}
      onSubmit={async (data) => {
        const password = String(data.get("password") ?? "");
        const next = String(data.get("new") ?? "");
        if (password === "") return s.passwordMissing;
        if ([...next].length < 10) return s.passwordShort;
        await call("POST", "/v1/me/password", { body: { password, new_password: next } });
        toast.success(s.passwordChanged);
        onClose();
        return undefined;
      }}
    >
      <input type="hidden" name="username" autoComplete="username" value={me.email ?? ""} readOnly />
      <PasswordField label={s.oldPassword} name="password" autoComplete="current-password" />
      <PasswordField label={s.newPassword} name="new" autoComplete="new-password" hint={s.passwordRule} />
    </FormDialog>
  );
}
