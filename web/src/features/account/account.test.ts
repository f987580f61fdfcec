import { beforeEach, describe, expect, it } from "vitest";
import { setLanguage } from "@/lib/i18n";
import { forgetPersonal, remember, remembered } from "@/lib/storage";
import { browserName } from "./agent";
import { auditQuery, noFilter, outcome, within } from "./audit";
import { failedText } from "./failed";
import { keyState, usableFirst } from "./keys";
import { limitText } from "./limit";
import { may } from "./me";
import { arrivalOf, hashOf, sectionOf } from "./place";
import { actionOf, byArea, curlExample, offered, sampleRoute } from "./scopes";
import { useStrings } from "./strings";
import type { Key, LimitFigure, Me, Role, SubjectUsage, User } from "./types";
import { amount, inOrder, level, share, telling } from "./usage";
import { rolesToGive, whyFixed } from "./users";

const scopes = [
  "server:read",
  "metrics:read",
  "sessions:read",
  "sessions:write",
  "sessions:execute",
  "sandboxes:read",
  "sandboxes:write",
  "sandboxes:execute",
  "account:read",
  "account:write",
  "admin:read",
  "admin:write",
];

function someone(role: Role, more: Partial<Me> = {}): Me {
  const rights = ["read", "manage", "write", "execute", "administer"];
  return {
    auth: "accounts",
    user_id: "usr_me",
    name: "Me",
    operator: false,
    organisation: { organisation_id: "org_a", name: "Acme", role },
    organisations: [],
    password: true,
    may: rights.slice(0, { viewer: 2, member: 4, admin: 5, owner: 5 }[role]),
    sign_in: { auth: "accounts", password: true, providers: [], setup: false },
    ...more,
  };
}

describe("the address", () => {
  it("brings a link, a failure or a place, and nothing else", () => {
    expect(arrivalOf("#setup=ab-C_9")).toEqual({ kind: "setup", secret: "ab-C_9" });
    expect(arrivalOf("#set-password=x")).toEqual({ kind: "set-password", secret: "x" });
    expect(arrivalOf("#sign-in-failed=provider-refused")).toEqual({ kind: "sign-in-failed", code: "provider-refused" });
    expect(arrivalOf("#token-refused")).toEqual({ kind: "token-refused" });
    for (const hash of ["", "#main", "#setup=", "#setup=a b", "#setup=<b>", "#other=x", `#setup=${"a".repeat(201)}`]) {
      expect(arrivalOf(hash), hash).toBeNull();
    }
  });

  it("names the parts of account and administration, each under its own", () => {
    expect(sectionOf("#account/keys")).toBe("keys");
    expect(sectionOf("#admin/all-keys")).toBe("all-keys");
    expect(sectionOf("#account/usage")).toBe("usage");
    expect(sectionOf("#account/users")).toBeNull();
    expect(sectionOf("#admin/")).toBeNull();
    expect(sectionOf("#main")).toBeNull();
    expect(sectionOf(hashOf("audit"))).toBe("audit");
    expect(hashOf("profile")).toBe("#account/profile");
  });
});

describe("a failed sign-in", () => {
  it("is a sentence for what is known, and the code for what is not, whatever it is", () => {
    const s = useStrings.now();
    expect(failedText(s, "provider-no-role")).toContain("no group");
    expect(failedText(s, "something-new")).toContain("something-new");
    expect(failedText(s, "constructor")).toContain("constructor");
    expect(typeof failedText(s, "__proto__")).toBe("string");
  });
});

describe("rights", () => {
  it("offers scopes by what the role may", () => {
    expect(offered(scopes, someone("viewer").may ?? [])).toEqual([
      "server:read",
      "sessions:read",
      "sandboxes:read",
      "account:read",
      "account:write",
    ]);
    expect(offered(scopes, someone("member").may ?? [])).not.toContain("admin:read");
    expect(offered(scopes, someone("admin").may ?? [])).toContain("admin:write");
    expect(offered(scopes, [...(someone("owner").may ?? []), "operate"])).toEqual(scopes);
    expect(actionOf("new:thing")).toBe("read");
  });

  it("groups scopes by area", () => {
    expect(byArea(scopes)[2]).toEqual({
      area: "sessions",
      scopes: ["sessions:read", "sessions:write", "sessions:execute"],
    });
  });

  it("of nobody who is known are not held back", () => {
    expect(may(undefined, "write")).toBe(true);
    expect(may(someone("viewer"), "write")).toBe(false);
    expect(may({ ...someone("viewer"), may: null }, "read")).toBe(false);
  });

  it("of users say who can change whom, and why not", () => {
    const user = (role: Role, more: Partial<User> = {}): User => ({
      id: "usr_x",
      email: "x@example.org",
      name: "X",
      operator: false,
      password: true,
      disabled: false,
      created_at: "2026-01-01T00:00:00Z",
      memberships: [{ organisation_id: "org_a", name: "Acme", role }],
      ...more,
    });
    expect(whyFixed(someone("admin"), user("member"), "org_a")).toBe("");
    expect(whyFixed(someone("admin"), user("owner"), "org_a")).toBe("owner");
    expect(whyFixed(someone("owner"), user("owner"), "org_a")).toBe("");
    expect(whyFixed(someone("owner"), user("member", { operator: true }), "org_a")).toBe("operator");
    expect(whyFixed(someone("owner"), user("member", { id: "usr_me" }), "org_a")).toBe("self");
    const operator = someone("admin", { operator: true, may: ["operate"] });
    expect(whyFixed(operator, user("owner", { operator: true }), "org_a")).toBe("");
    expect(rolesToGive(someone("admin"))).toEqual(["viewer", "member", "admin"]);
    expect(rolesToGive(someone("owner"))).toContain("owner");
    expect(rolesToGive(operator)).toContain("owner");
  });
});

describe("keys", () => {
  const now = Date.parse("2026-06-01T00:00:00Z");
  const key = (state: Key["state"], expires_at?: string) => ({ state, ...(expires_at ? { expires_at } : {}) });

  it("tell when they end", () => {
    expect(keyState(key("active"), now)).toBe("active");
    expect(keyState(key("active", "2026-07-01T00:00:00Z"), now)).toBe("active");
    expect(keyState(key("active", "2026-06-05T00:00:00Z"), now)).toBe("soon");
    expect(keyState(key("active", "2026-05-31T00:00:00Z"), now)).toBe("expired");
    expect(keyState(key("revoked", "2026-07-01T00:00:00Z"), now)).toBe("revoked");
  });

  it("that work come first, in their order", () => {
    const keys = ["revoked", "active", "expired", "active"].map((state, i) => ({ id: `k${i}`, state })) as Key[];
    expect(usableFirst(keys, now).map((k) => k.id)).toEqual(["k1", "k3", "k0", "k2"]);
  });

  it("come with a call that they may make", () => {
    expect(sampleRoute(undefined).path).toBe("/v1/me");
    expect(sampleRoute(["sandboxes:read", "sessions:read"]).path).toBe("/v1/sandboxes");
    expect(sampleRoute(["sessions:write"])).toEqual({ method: "POST", path: "/v1/sessions" });
    expect(curlExample("https://x.example", "csk_a_b", null)).toBe(
      "curl -H 'Authorization: Bearer csk_a_b' https://x.example/v1/me",
    );
    expect(curlExample("https://x.example", "csk_a_b", ["sandboxes:write"])).toContain("-d '{}'");
  });
});

describe("the audit", () => {
  it("is asked for what the filters say, page by page", () => {
    expect(auditQuery(noFilter, 0, 50)).toEqual({ limit: 50 });
    expect(auditQuery({ ...noFilter, user: "usr_a", object: " csk_1 ", organisation: "*" }, 7, 50)).toEqual({
      limit: 50,
      user: "usr_a",
      object: "csk_1",
      organisation: "*",
      before: 7,
    });
    expect([200, 204, 303, 401, 404, 500].map((status) => outcome({ status }))).toEqual([
      "done",
      "done",
      "done",
      "refused",
      "refused",
      "failed",
    ]);
  });
});

describe("usage", () => {
  const figure = (used: number, most?: number): LimitFigure => ({
    limit: "sandboxes",
    unit: "number",
    used,
    ...(most === undefined ? {} : { most }),
  });
  const of = (id: string, ...limits: LimitFigure[]): SubjectUsage => ({ scope: "user", user_id: id, limits });

  it("says how full a limit is, and nothing where there is none", () => {
    expect([figure(1, 4), figure(9, 4), figure(0, 0), figure(5)].map(share)).toEqual([0.25, 1, 1, undefined]);
    expect([figure(1, 4), figure(4, 5), figure(5, 5), figure(5)].map(level)).toEqual(["fine", "tight", "full", "fine"]);
  });

  it("has the amounts in their units", () => {
    expect(amount("bytes", 3 * 1024 ** 3)).toBe("3 GB");
    expect(amount("milliseconds", 90_000)).toBe("1 min 30 s");
    expect(amount("milliseconds", 0)).toBe("0 s");
    expect(amount("number", 1200)).toBe("1,200");
  });

  it("leaves out what is neither bounded nor used, and begins with who is nearest to a limit", () => {
    expect(telling(of("a", figure(0), figure(0, 3), figure(2))).length).toBe(2);
    const organisation: SubjectUsage = { scope: "organisation", organisation_id: "o", limits: null };
    const order = inOrder([of("low", figure(1, 10)), of("none", figure(7)), of("full", figure(10, 10)), organisation]);
    expect(order.map((u) => u.user_id ?? u.organisation_id)).toEqual(["o", "full", "low", "none"]);
  });
});

describe("browsers", () => {
  it.each([
    [
      "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
      "Chrome, Linux",
    ],
    ["Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox, Windows"],
    [
      "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36 Edg/140.0",
      "Edge, Windows",
    ],
    [
      "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
      "Safari, iPhone",
    ],
    ["curl/8.5.0", "curl/8.5.0"],
    ["", ""],
  ])("%s", (agent, name) => expect(browserName(agent)).toBe(name));
});

describe("leaving", () => {
  beforeEach(() => localStorage.clear());

  it("forgets what the person did and keeps how the page looks", () => {
    remember("draft.new", "secret plan");
    remember("theme", "dark");
    localStorage.setItem("another-program", "1");
    expect(forgetPersonal()).toBe(true);
    expect(remembered("draft.new")).toBeNull();
    expect(remembered("theme")).toBe("dark");
    expect(localStorage.getItem("another-program")).toBe("1");
    remember("draft.new", "");
    expect(forgetPersonal(), "an empty draft is nothing").toBe(false);
  });
});

describe("the audit of a time", () => {
  const now = Date.parse("2026-11-23T12:00:00Z");
  const entries = ["11:30", "10:00", "09:00"].map((clock) => ({ at: `2026-11-23T${clock}:00Z` }));
  it("ends with the first entry that is too old", () => {
    expect(within(entries, "hour", now)).toEqual({ shown: entries.slice(0, 1), ended: true });
    expect(within(entries, "day", now)).toEqual({ shown: entries, ended: false });
    expect(within(entries, "ever", now)).toEqual({ shown: entries, ended: false });
    expect(within([], "hour", now)).toEqual({ shown: [], ended: false });
  });
});

describe("a limit that is reached", () => {
  beforeEach(() => setLanguage("en"));
  const limit = {
    limit: "cpu_per_day",
    scope: "organisation",
    unit: "milliseconds",
    used: 7_200_000,
    most: 7_200_000,
  } as const;
  it("is said with what is used and when there is more", () => {
    const now = Date.parse("2026-11-23T12:00:00Z");
    const near = limitText({ ...limit, frees_at: "2026-11-23T12:00:40Z" }, now);
    expect(near.title).toBe("Limit reached: CPU time, today");
    expect(near.detail).toMatch(/^Your organisation uses .+ of .+\. There is more in 40 s, at /);
    expect(limitText({ ...limit, frees_at: "2026-11-24T00:00:00Z" }, now).detail).toMatch(/There is more at \d/);
    expect(limitText(limit, now).detail).not.toContain("more");
  });
  it("that is new to the page goes by its own name", () => {
    expect(limitText({ limit: "moons", scope: "user", used: 1, most: 1 }).title).toBe("Limit reached: moons");
  });
});
