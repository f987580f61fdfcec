import { Plus } from "lucide-react";
import { useState } from "react";
import { call } from "@/api/client";
import { formatAgo } from "@/lib/format";
import { Badge, Button, ConfirmDialog } from "@/ui";
import { useLooked, useOrganisations } from "./organisation";
import { Facts, Field, FormDialog, Row, Rows, Section, Shown, text, useChange } from "./parts";
import { openSection } from "./place";
import { useStrings } from "./strings";
import type { Me, Organisation } from "./types";

export default function Organisations({ me }: { me: Me }) {
  const s = useStrings();
  const change = useChange("organisations", "audit");
  const list = useOrganisations(me);
  const [making, setMaking] = useState(false);
  const [deleting, setDeleting] = useState<Organisation | null>(null);
  const own = me.organisation?.organisation_id;
  return (
    <Section
      title={s.organisations}
      text={s.organisationsText}
      action={
        <Button variant="primary" onClick={() => setMaking(true)}>
          <Plus className="size-4" aria-hidden />
          {s.newOrganisation}
        </Button>
      }
    >
      <Shown query={list}>
        {(organisations) => (
          <Rows label={s.organisations}>
            {organisations.map((o) => (
              <Row key={o.id}>
                <div className="min-w-0 flex-1 basis-64">
                  <p className="flex flex-wrap items-center gap-2 font-medium text-sm">
                    {o.name}
                    {(me.organisations ?? []).some((m) => m.organisation_id === o.id) && <Badge>{s.you}</Badge>}
                  </p>
                  <Facts facts={[s.usersCount(o.users), s.created(formatAgo(o.created_at))]} />
                </div>
                <Button
                  size="sm"
                  aria-label={`${s.seeUsers}: ${o.name}`}
                  onClick={() => {
                    useLooked.setState({ organisation: o.id === own ? "" : o.id });
                    openSection("users");
                  }}
                >
                  {s.seeUsers}
                </Button>
                {/* One with users is refused. */}
                {o.users === 0 && (
                  <Button
                    size="sm"
                    className="text-danger"
                    aria-label={`${s.remove}: ${o.name}`}
                    onClick={() => setDeleting(o)}
                  >
                    {s.remove}
                  </Button>
                )}
              </Row>
            ))}
          </Rows>
        )}
      </Shown>
      <ConfirmDialog
        open={deleting !== null}
        onOpenChange={(open) => !open && setDeleting(null)}
        title={s.deleteOrganisationTitle(deleting?.name ?? "")}
        description={s.deleteOrganisationText}
        confirm={s.remove}
        danger
        onConfirm={() =>
          deleting && void change(() => call("DELETE", `/v1/organisations/${encodeURIComponent(deleting.id)}`))
        }
      />
      {making && (
        <FormDialog
          title={s.newOrganisation}
          confirm={s.makeOrganisation}
          onClose={() => setMaking(false)}
          onSubmit={async (data) => {
            await call("POST", "/v1/organisations", { body: { name: text(data, "name") } });
            setMaking(false);
            void change(async () => {});
            return undefined;
          }}
        >
          <Field label={s.name} name="name" maxLength={200} autoComplete="off" />
        </FormDialog>
      )}
    </Section>
  );
}
