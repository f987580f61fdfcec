import { useQuery } from "@tanstack/react-query";
import { Gauge } from "lucide-react";
import { call } from "@/api/client";
import { Badge, EmptyState } from "@/ui";
import { Figures } from "./Figures";
import { OrganisationPicker } from "./OrganisationPicker";
import { useLooked, useOrganisations } from "./organisation";
import { Row, Rows, Section, Shown } from "./parts";
import { useStrings } from "./strings";
import type { Me, SubjectUsage } from "./types";
import { useUsers } from "./Users";
import { inOrder, telling } from "./usage";

/** What everybody uses who used or has something today, the nearest to a limit first. */
export default function AllUsage({ me }: { me: Me }) {
  const s = useStrings();
  const organisation = useLooked((state) => state.organisation);
  const users = useUsers(organisation);
  const organisations = useOrganisations(me);
  const list = useQuery({
    queryKey: ["usage", "all", organisation],
    queryFn: ({ signal }) =>
      call<{ usage: SubjectUsage[] | null }>("GET", "/v1/usage/all", {
        query: { organisation: organisation || undefined },
        signal,
      }).then((answer) => inOrder(answer.usage ?? [])),
    refetchInterval: 15_000,
  });
  const organisationName = (id: string | undefined) =>
    [...(me.organisations ?? [])].find((m) => m.organisation_id === id)?.name ??
    organisations.data?.find((o) => o.id === id)?.name ??
    id ??
    "";
  const nameOf = (usage: SubjectUsage) =>
    usage.scope === "organisation"
      ? organisationName(usage.organisation_id)
      : (users.data?.find((user) => user.id === usage.user_id)?.name ?? usage.user_id ?? s.installation);

  return (
    <Section title={s.allUsage} text={s.allUsageText} action={<OrganisationPicker me={me} />}>
      <Shown query={list}>
        {(all) => {
          const shown = all.filter((usage) => telling(usage).length > 0);
          return shown.length === 0 ? (
            <div className="rounded-lg border bg-raised py-6">
              <EmptyState icon={<Gauge />} title={s.noUsage}>
                {s.noUsageText}
              </EmptyState>
            </div>
          ) : (
            <Rows label={s.allUsage}>
              {shown.map((usage) => (
                <Row key={`${usage.scope} ${usage.organisation_id} ${usage.user_id}`}>
                  <p className="flex w-full flex-wrap items-center gap-2 font-medium text-sm">
                    {nameOf(usage)}
                    {usage.scope === "organisation" && <Badge>{s.organisation}</Badge>}
                    {usage.scope === "user" && organisation === "*" && usage.organisation_id && (
                      <Badge>{organisationName(usage.organisation_id)}</Badge>
                    )}
                  </p>
                  <Figures usage={usage} figures={telling(usage)} />
                </Row>
              ))}
            </Rows>
          );
        }}
      </Shown>
    </Section>
  );
}
