import type { Problem } from "./types";

/** A failed call, in the server's words. */
export class ApiError extends Error {
  readonly code: string;
  readonly detail: string;
  readonly hint: string;
  readonly status: number;

  constructor(status: number, code: string, detail: string, hint = "") {
    super(detail);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.hint = hint;
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
  );
}

type Listener = () => void;
const unauthenticated = new Set<Listener>();

/** Calls listener whenever the server asks for the token. */
export function onUnauthenticated(listener: Listener): () => void {
  unauthenticated.add(listener);
  return () => unauthenticated.delete(listener);
}

export function reportUnauthenticated(): void {
  for (const listener of unauthenticated) listener();
}

export interface CallOptions {
  body?: unknown; // sent as JSON, unless it is a Blob
  query?: Record<string, string | number | boolean | undefined>;
  headers?: Record<string, string>;
  signal?: AbortSignal;
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

/** Sends a request and gives the answer if it is a good one; throws ApiError otherwise. */
export async function send(method: string, path: string, options: CallOptions = {}): Promise<Response> {
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
  if (response.status === 401) reportUnauthenticated();
  throw await errorOf(response);
}

/** Sends a request and gives the answer's JSON; undefined for an answer without a body. */
export async function call<T>(method: string, path: string, options: CallOptions = {}): Promise<T> {
  const response = await send(method, path, options);
  if (response.status === 204) return undefined as T;
  const text = await response.text();
  return (text === "" ? undefined : JSON.parse(text)) as T;
}
