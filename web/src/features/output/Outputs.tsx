import type { Item } from "@/api/types";

export function Outputs({ item }: { item: Item; sessionId: string }) {
  return <pre>{JSON.stringify(item.outputs)}</pre>;
}
