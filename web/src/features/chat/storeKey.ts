import { useSessionStore } from "@/features/session";

let count = 0;
const keys = new WeakMap<object, number>();

/** A React key for what belongs to one session, also while that has no id yet. */
export function useStoreKey(): number {
  const store = useSessionStore();
  let key = keys.get(store);
  if (key === undefined) {
    key = ++count;
    keys.set(store, key);
  }
  return key;
}
