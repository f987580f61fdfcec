// What other features take from the session.
export type { SessionActions } from "./actions";
export { actionsOf, SessionProvider, useActions, useItem, useSession, useSessionStore } from "./context";
export { useHost } from "./host";
export { isStream, StreamOutput } from "./outputs";
export { useModels } from "./sessions";
export { type SessionState, SessionStore } from "./store";
