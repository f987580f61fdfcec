// The shapes of accounts in /v1, as they are generated from api/openapi.yaml.
import type { components } from "@/api/openapi";

type There = components["schemas"];

export type Me = There["Me"];
export type Membership = There["Membership"];
export type Role = Membership["role"];
export type SignInWays = There["SignInWays"];
export type BrowserLogin = There["BrowserLogin"];
export type Key = There["Key"];
export type KeyList = There["KeyList"];
export type NewKey = There["NewKey"];
export type User = There["User"];
export type UserLink = There["UserLink"];
export type Organisation = There["Organisation"];
export type AuditEntry = There["AuditEntry"];
export type AuditList = There["AuditList"];
export type Sandbox = There["Sandbox"];
export type Allowance = There["Allowance"];
export type SubjectUsage = There["SubjectUsage"];
export type LimitFigure = There["LimitFigure"];

/** What a role may do; in a list of them means: is allowed. */
export type Action = "read" | "write" | "execute" | "manage" | "administer" | "operate";

export const roles: readonly Role[] = ["viewer", "member", "admin", "owner"];
