import { useQuery } from "@tanstack/react-query";
import { KeyRound, Plus } from "lucide-react";
import { useState } from "react";
import { call } from "@/api/client";
import { formatAgo } from "@/lib/format";
import { Badge, Button, ConfirmDialog, EmptyState, Select } from "@/ui";
import { KeySecret, NewKeyDialog } from "./KeyDialogs";
import { keyState, type Overlap, overlaps, usableFirst } from "./keys";
import { Facts, FormDialog, Found, formatDate, Row, Rows, Section, Shown, useChange } from "./parts";
import { useStrings } from "./strings";
import type { Key, KeyList, Me, NewKey } from "./types";

const tones = { active: "success", soon: "warning", expired: "neutral", revoked: "neutral" } as const;

/** One's own keys, or with all those of the organisation. */
export default function Keys({ me, all }: { me: Me; all?: boolean }) {
  const s = useStrings();
  const change = useChange("keys", "audit");
  const [over, setOver] = useState(false);
  const [making, setMaking] = useState(false);
  const [made, setMade] = useState<NewKey | null>(null);
  const [rotating, setRotating] = useState<Key | null>(null);
  const [revoking, setRevoking] = useState<Key | null>(null);
  const list = useQuery({
    queryKey: ["keys", all === true],
    queryFn: ({ signal }) => call<KeyList>("GET", "/v1/keys", { query: { all: all || undefined }, signal }),
  });

  return (
    <Section
      title={all ? s.allKeys : s.keys}
      text={all ? s.allKeysText : s.keysText}
      action={
        !all && (
          <Button variant="primary" onClick={() => setMaking(true)}>
            <Plus className="size-4" aria-hidden />
            {s.newKey}
          </Button>
        )
      }
    >
      <Shown query={list}>
        {(data) => {
          const keys = usableFirst(data.keys ?? []);
          const usable = keys.filter((key) => ["active", "soon"].includes(keyState(key)));
          const shown = over ? keys : usable;
          return (
            <>
              {shown.length > 0 ? (
                <Found list={shown} textOf={(key) => `${key.name} ${key.id} ${key.email}`}>
                  {(found) => (
                    <Rows label={all ? s.allKeys : s.keys}>
                      {found.map((key) => (
                        <KeyRow
                          key={key.id}
                          item={key}
                          owner={all === true}
                          onRotate={key.user_id === me.user_id ? () => setRotating(key) : undefined}
                          onRevoke={() => setRevoking(key)}
                        />
                      ))}
                    </Rows>
                  )}
                </Found>
              ) : (
                <div className="rounded-lg border bg-raised py-6">
                  <EmptyState icon={<KeyRound />} title={s.noKeys}>
                    {all ? undefined : s.noKeysText}
                  </EmptyState>
                </div>
              )}
              {!over && keys.length > usable.length && (
                <Button variant="ghost" size="sm" className="mt-3 text-muted" onClick={() => setOver(true)}>
                  {s.showOver(keys.length - usable.length)}
                </Button>
              )}
            </>
          );
        }}
      </Shown>
      {making && (
        <NewKeyDialog
          me={me}
          scopes={list.data?.scopes ?? []}
          onClose={() => setMaking(false)}
          onMade={(key) => {
            setMaking(false);
            setMade(key);
            void change(async () => {});
          }}
        />
      )}
      {made && <KeySecret made={made} onClose={() => setMade(null)} />}
      {rotating && (
        <RotateDialog
          rotated={rotating}
          onClose={() => setRotating(null)}
          onMade={(key) => {
            setRotating(null);
            setMade(key);
            void change(async () => {});
          }}
        />
      )}
      <ConfirmDialog
        open={revoking !== null}
        onOpenChange={(open) => !open && setRevoking(null)}
        title={s.revokeTitle(revoking?.name ?? "")}
        description={s.revokeText}
        confirm={s.revoke}
        danger
        onConfirm={() =>
          revoking && void change(() => call("DELETE", `/v1/keys/${encodeURIComponent(revoking.id)}`), s.revoked)
        }
      />
    </Section>
  );
}

function KeyRow({
  item,
  owner,
  onRotate,
  onRevoke,
}: {
  item: Key;
  owner: boolean;
  onRotate: (() => void) | undefined;
  onRevoke: () => void;
}) {
  const s = useStrings();
  const state = keyState(item);
  const works = state === "active" || state === "soon";
  return (
    <Row dim={!works}>
      <div className="min-w-0 flex-1 basis-72">
        <p className="flex flex-wrap items-center gap-x-2 gap-y-1">
          <span className="break-words font-medium text-sm">{item.name}</span>
          <Badge tone={tones[state]}>{s.keyStates[state]}</Badge>
        </p>
        <p className="mt-0.5 break-all font-mono text-muted text-xs">{item.id}…</p>
        <Facts
          facts={[
            owner && item.email,
            s.created(formatAgo(item.created_at)),
            item.revoked_at
              ? s.revokedAt(formatAgo(item.revoked_at))
              : item.expires_at
                ? s.expires(formatDate(item.expires_at))
                : s.expiresNever,
            item.last_used_at ? s.lastUse(formatAgo(item.last_used_at)) : s.neverUsed,
          ]}
        />
        <ul aria-label={s.rights} className="mt-1.5 flex flex-wrap gap-1">
          {(item.scopes ?? [s.allRights]).map((scope) => (
            <li key={scope} className="rounded bg-hover px-1.5 py-0.5 text-2xs">
              {scope}
            </li>
          ))}
        </ul>
      </div>
      {works && (
        <div className="flex gap-1.5">
          {onRotate && (
            <Button size="sm" onClick={onRotate} aria-label={`${s.rotate}: ${item.name}`}>
              {s.rotate}
            </Button>
          )}
          <Button size="sm" className="text-danger" onClick={onRevoke} aria-label={`${s.revoke}: ${item.name}`}>
            {s.revoke}
          </Button>
        </div>
      )}
    </Row>
  );
}

function RotateDialog({
  rotated,
  onClose,
  onMade,
}: {
  rotated: Key;
  onClose: () => void;
  onMade: (key: NewKey) => void;
}) {
  const s = useStrings();
  const [overlap, setOverlap] = useState<Overlap>("day");
  return (
    <FormDialog
      title={s.rotateTitle(rotated.name)}
      description={s.rotateText}
      confirm={s.makeNew}
      onClose={onClose}
      onSubmit={async () => {
        const made = await call<NewKey>("POST", `/v1/keys/${encodeURIComponent(rotated.id)}/rotate`, {
          body: { overlap_ms: overlaps[overlap] },
        });
        onMade(made);
        return undefined;
      }}
    >
      <div className="flex items-center justify-between gap-3 text-sm">
        {s.overlap}
        <Select
          label={s.overlap}
          value={overlap}
          onChange={setOverlap}
          options={(Object.keys(overlaps) as Overlap[]).map((value) => ({ value, label: s.overlaps[value] }))}
        />
      </div>
    </FormDialog>
  );
}
