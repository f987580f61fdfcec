import type { Problem } from "./types";

/** The limit that refused a call, for people: which, how much of it is used, when there is more. */
export type LimitReached = NonNullable<Problem["limit"]>;

/** A failed call, in the server's words. */
export class ApiError extends Error {
  readonly code: string;
  readonly detail: string;
  readonly hint: string;
  readonly status: number;
  readonly limit: LimitReached | undefined;

  constructor(status: number, code: string, detail: string, hint = "", limit?: LimitReached) {
    super(detail);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.hint = hint;
    this.limit = limit;
  }
}

/** The code of calls that never reached the server. */
export const offline = "offline";

/** Turns a failed answer into an ApiError, also one that is no problem (a proxy's page). */
export async function errorOf(response: Response): Promise<ApiError> {
  let problem: Partial<Problem> = {};
  try {
    problem = (await response.json()) as Partial<Problem>;
  } catch {
    // Not JSON: somebody between us and the server answered.
  }
  return new ApiError(
    response.status,
    problem.code ?? `http-${response.status}`,
    problem.detail ?? problem.title ?? `The server answered ${response.status} ${response.statusText}.`.trim(),
    problem.hint,
    problem.limit,
  );
}

// Who is signed out while he works signs in again, and what was under way goes
// on: calls wait for that instead of failing, so that nothing typed is lost.
let asks: (() => void) | null = null;
const waiting = new Set<() => void>();

/** Has ask called whenever the server does not know who calls. It ends with signedIn. */
export function onSignedOut(ask: () => void): () => void {
  asks = ask;
  return () => {
    if (asks === ask) asks = null;
  };
}

/** Lets go on what waits for a sign-in. */
export function signedIn(): void {
  const all = [...waiting];
  waiting.clear();
  for (const go of all) go();
}

// Other refusals of this status are answers: a password or a token was wrong.
const nobody = new Set(["unauthenticated", "signed-out", "rights-changed"]);

/** Waits until somebody is signed in; false at once for a failure that has nothing to do with that. */
export async function signInAgain(
  failure: { status: number; code: string },
  signal?: AbortSignal | null,
): Promise<boolean> {
  const ask = asks;
  if (!ask || failure.status !== 401 || !nobody.has(failure.code)) return false;
  await new Promise<void>((go, leave) => {
    signal?.throwIfAborted();
    waiting.add(go);
    signal?.addEventListener("abort", () => waiting.delete(go) && leave(signal.reason), { once: true });
    ask();
  });
  return true;
}

export interface CallOptions {
  body?: unknown; // sent as JSON, unless it is a Blob
  query?: Record<string, string | number | boolean | undefined>;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  /** Asked by whoever is not signed in. */
  outside?: boolean;
}

/** Adds the parameters that are set to a path. */
export function withQuery(path: string, query: CallOptions["query"] = {}): string {
  const parameters = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined) parameters.set(key, String(value));
  }
  const text = parameters.toString();
  return text === "" ? path : `${path}?${text}`;
}

/** The address of something of a session: `sessionPath(id, "items", itemID)`. */
export function sessionPath(id: string, ...rest: string[]): string {
  return ["/v1/sessions", id, ...rest].map((part, i) => (i === 0 ? part : encodeURIComponent(part))).join("/");
}

/**
 * Sends a request and gives the answer if it is a good one; throws ApiError otherwise.
 * Where a sign-in is needed it waits for one, and sends it again.
 */
export async function send(method: string, path: string, options: CallOptions = {}): Promise<Response> {
  try {
    return await sendOnce(method, path, options);
  } catch (err) {
    if (err instanceof ApiError && !options.outside && (await signInAgain(err, options.signal)))
      return sendOnce(method, path, options);
    throw err;
  }
}

async function sendOnce(method: string, path: string, options: CallOptions): Promise<Response> {
  const headers: Record<string, string> = { ...options.headers };
  let body: BodyInit | undefined;
  if (options.body instanceof Blob) {
    body = options.body;
  } else if (options.body !== undefined) {
    body = JSON.stringify(options.body);
    headers["Content-Type"] ??= "application/json";
  }
  let response: Response;
  try {
    response = await fetch(withQuery(path, options.query), {
      method,
      headers,
      body,
      signal: options.signal ?? null,
      credentials: "same-origin",
    });
  } catch (err) {
    if (options.signal?.aborted) throw err;
    throw new ApiError(
      0,
      offline,
      "The server can't be reached.",
      "Nothing is lost: what ran goes on there. Try again once the connection is back.",
    );
  }
  if (response.ok) return response;
  throw await errorOf(response);
}

/** Sends a request and gives the answer's JSON; undefined for an answer without a body. */
export async function call<T>(method: string, path: string, options: CallOptions = {}): Promise<T> {
  const response = await send(method, path, options);
  if (response.status === 204) return undefined as T;
  const text = await response.text();
  return (text === "" ? undefined : JSON.parse(text)) as T;
}
