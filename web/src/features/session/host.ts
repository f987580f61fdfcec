import { useQuery } from "@tanstack/react-query";
import { call } from "@/api/client";
import type { components } from "@/api/openapi";
import { queryClient } from "@/lib/query";

type Info = components["schemas"]["Info"];

/** What the server's kind of sandboxes can do. Undefined while that is not known. */
export function useHost(enabled = true): Info | undefined {
  const { data } = useQuery(
    {
      queryKey: ["host"],
      queryFn: ({ signal }) => call<Info>("GET", "/v1/info", { signal }),
      staleTime: Number.POSITIVE_INFINITY, // another kind would be another server
      enabled,
    },
    queryClient,
  );
  return data;
}
