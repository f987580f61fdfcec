import { createContext, type ReactNode, useContext, useEffect, useMemo } from "react";
import { useStore } from "zustand";
import type { Item } from "@/api/types";
import { createActions, type SessionActions } from "./actions";
import type { SessionState, SessionStore } from "./store";
import { left } from "./untouched";

const Context = createContext<{ store: SessionStore; actions: SessionActions } | null>(null);

const known = new WeakMap<SessionStore, SessionActions>();

/** The actions of a store; one set for each, as they hold edits that are not saved yet. */
export function actionsOf(store: SessionStore): SessionActions {
  let actions = known.get(store);
  if (!actions) {
    actions = createActions(store);
    known.set(store, actions);
  }
  return actions;
}

/** Gives a session to the components inside, and follows it while they are shown. */
export function SessionProvider({ store, children }: { store: SessionStore; children: ReactNode }) {
  const value = useMemo(() => ({ store, actions: actionsOf(store) }), [store]);
  useEffect(() => {
    store.open();
    const save = () => void actionsOf(store).saveEdits();
    window.addEventListener("pagehide", save);
    const back = store.state.subscribe((now, before) => {
      if (now.connection === "open" && before.connection !== "open") save();
    });
    return () => {
      back();
      window.removeEventListener("pagehide", save);
      save();
      store.close();
      left(store);
    };
  }, [store]);
  return <Context value={value}>{children}</Context>;
}

function useSessionContext() {
  const value = useContext(Context);
  if (!value) throw new Error("outside of a SessionProvider");
  return value;
}

export function useSessionStore(): SessionStore {
  return useSessionContext().store;
}

/** The session's state, or the part of it that select picks: the component follows that part only. */
export function useSession(): SessionState;
export function useSession<T>(select: (state: SessionState) => T): T;
export function useSession<T>(select?: (state: SessionState) => T) {
  return useStore(useSessionContext().store.state, select ?? ((state) => state as T));
}

export function useItem(id: string): Item | undefined {
  return useSession((state) => state.items.get(id));
}

export function useActions(): SessionActions {
  return useSessionContext().actions;
}
