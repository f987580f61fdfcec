import { useMemo } from "react";
import { useStore } from "zustand";
import { useSession } from "@/features/session";
import { marksOf, unseen } from "./marks";
import { filesOf } from "./store";

/** How many files were made or changed and not looked at. */
export function useUnseenFiles(): number {
  const id = useSession((state) => state.id);
  const files = filesOf(id);
  const seen = useStore(files.store, (state) => state.seen);
  const items = useSession((state) => state.items);
  const order = useSession((state) => state.order);
  return useMemo(() => unseen(marksOf(order, items), seen).size, [order, items, seen]);
}
