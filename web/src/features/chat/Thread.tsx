import { Cell } from "@/features/notebook/Cell";
import { useSession } from "@/features/session";

export function Thread() {
  const order = useSession((s) => s.order);
  return order.map((id) => <Cell key={id} id={id} />);
}
