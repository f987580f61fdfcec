// Which organisation an operator looks at, in all parts of the administration.
import { useQuery } from "@tanstack/react-query";
import { create } from "zustand";
import { call } from "@/api/client";
import { may } from "./me";
import type { Me, Organisation } from "./types";

/** "": one's own; "*": all of them. */
export const useLooked = create<{ organisation: string }>(() => ({ organisation: "" }));

/** All organisations, for operators. */
export function useOrganisations(me: Me) {
  return useQuery({
    queryKey: ["organisations"],
    queryFn: ({ signal }) =>
      call<{ organisations: Organisation[] | null }>("GET", "/v1/organisations", { signal }).then(
        (answer) => answer.organisations ?? [],
      ),
    enabled: may(me, "operate"),
  });
}
