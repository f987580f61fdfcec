import { useItem } from "@/features/session";

export function Cell({ id }: { id: string }) {
  const item = useItem(id);
  return <pre>{item?.code}</pre>;
}
