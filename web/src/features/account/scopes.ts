// What a key may be made for, and who may give it.
import type { Action } from "./types";

/** What a role has to allow, so that a key with this scope can do anything. */
export function actionOf(scope: string): Action {
  const [area = "", what = ""] = scope.split(":");
  if (area === "metrics") return "operate";
  if (area === "admin") return "administer";
  if (area === "account") return "manage";
  return what === "write" || what === "execute" ? what : "read";
}

/** The scopes that are of use to somebody who may this. */
export function offered(scopes: readonly string[], may: readonly string[]): string[] {
  return scopes.filter((scope) => may.includes(actionOf(scope)));
}

/** Scopes by their area, in the server's order. */
export function byArea(scopes: readonly string[]): { area: string; scopes: string[] }[] {
  const areas = new Map<string, string[]>();
  for (const scope of scopes) {
    const area = scope.split(":")[0] ?? "";
    areas.set(area, [...(areas.get(area) ?? []), scope]);
  }
  return [...areas].map(([area, inside]) => ({ area, scopes: inside }));
}

/** A route that a key with these scopes may call; undefined: all. */
export function sampleRoute(scopes: readonly string[] | null | undefined): { method: "GET" | "POST"; path: string } {
  const has = (scope: string) => !scopes || scopes.includes(scope);
  if (has("account:read")) return { method: "GET", path: "/v1/me" };
  if (has("sandboxes:read")) return { method: "GET", path: "/v1/sandboxes" };
  if (has("sessions:read")) return { method: "GET", path: "/v1/sessions" };
  if (has("server:read")) return { method: "GET", path: "/v1/info" };
  if (has("metrics:read")) return { method: "GET", path: "/metrics" };
  if (has("admin:read")) return { method: "GET", path: "/v1/audit" };
  if (has("sandboxes:write")) return { method: "POST", path: "/v1/sandboxes" };
  if (has("sessions:write")) return { method: "POST", path: "/v1/sessions" };
  return { method: "GET", path: "/health" };
}

/** A call with the key, to paste into a shell. */
export function curlExample(origin: string, secret: string, scopes: readonly string[] | null | undefined): string {
  const { method, path } = sampleRoute(scopes);
  const body = method === "POST" ? " -X POST -H 'Content-Type: application/json' -d '{}'" : "";
  return `curl${body} -H 'Authorization: Bearer ${secret}' ${origin}${path}`;
}
