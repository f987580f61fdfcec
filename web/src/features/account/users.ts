// Who may change whom: what the server refuses is not offered.
import { may } from "./me";
import type { Me, Role, User } from "./types";
import { roles } from "./types";

export function roleIn(user: Pick<User, "memberships">, org: string): Role | undefined {
  return user.memberships?.find((m) => m.organisation_id === org)?.role;
}

/** Why somebody may not change a user in an organisation; "" if he may. */
export function whyFixed(me: Me, user: User, org: string): "" | "self" | "owner" | "operator" {
  if (user.id === me.user_id) return "self";
  if (may(me, "operate")) return "";
  if (user.operator) return "operator";
  if (me.organisation?.role !== "owner" && roleIn(user, org) === "owner") return "owner";
  return "";
}

/** The roles that somebody may give. */
export function rolesToGive(me: Me): Role[] {
  return roles.filter((role) => role !== "owner" || me.organisation?.role === "owner" || may(me, "operate"));
}
