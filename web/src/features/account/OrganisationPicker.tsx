import { Select } from "@/ui";
import { may } from "./me";
import { useLooked, useOrganisations } from "./organisation";
import { useStrings } from "./strings";
import type { Me } from "./types";

/** Lets an operator choose whose things are shown. Everybody else sees his own, and no choice. */
export function OrganisationPicker({ me }: { me: Me }) {
  const s = useStrings();
  const list = useOrganisations(me);
  const looked = useLooked((state) => state.organisation);
  const own = me.organisation;
  if (!may(me, "operate") || !list.data || list.data.length < 2) return null;
  const others = list.data.filter((o) => o.id !== own?.organisation_id);
  return (
    <Select
      label={s.organisation}
      value={looked}
      onChange={(organisation) => useLooked.setState({ organisation })}
      className="max-w-full"
      options={[
        ...(own ? [{ value: "", label: own.name }] : []),
        ...others.map((o) => ({ value: o.id, label: o.name })),
        { value: "*", label: s.everybody },
      ]}
    />
  );
}
