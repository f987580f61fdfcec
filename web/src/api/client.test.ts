import { afterEach, describe, expect, it, vi } from "vitest";
import { ApiError, call, onSignedOut, signedIn } from "./client";

const json = (value: unknown, status = 200) => new Response(JSON.stringify(value), { status });

describe("a call by somebody who is signed out", () => {
  afterEach(() => vi.unstubAllGlobals());

  it("waits for a sign-in and is sent again, with its body; all calls wait for the same", async () => {
    let known = false;
    const bodies: unknown[] = [];
    vi.stubGlobal("fetch", async (_: string, init: RequestInit) => {
      bodies.push(init.body);
      return known ? json({ ok: true }) : json({ code: "signed-out", detail: "You are signed out." }, 401);
    });
    const ask = vi.fn();
    const done = onSignedOut(ask);
    const both = Promise.all([call("POST", "/v1/a", { body: { n: 1 } }), call("POST", "/v1/b", { body: { n: 2 } })]);
    await vi.waitFor(() => expect(ask).toHaveBeenCalledTimes(2));
    known = true;
    signedIn();
    expect(await both).toEqual([{ ok: true }, { ok: true }]);
    expect(bodies).toEqual([`{"n":1}`, `{"n":2}`, `{"n":1}`, `{"n":2}`]);
    done();
  });

  it("fails when it is refused again, when it is given up, and when what was wrong is a password", async () => {
    let code = "signed-out";
    const send = vi.fn(async () => json({ code, detail: "No." }, 401));
    vi.stubGlobal("fetch", send);
    const done = onSignedOut(() => queueMicrotask(signedIn));
    await expect(call("GET", "/v1/a")).rejects.toThrow(ApiError);
    expect(send).toHaveBeenCalledTimes(2);
    code = "sign-in-failed";
    await expect(call("POST", "/v1/login")).rejects.toMatchObject({ code });
    expect(send).toHaveBeenCalledTimes(3);
    done();

    code = "signed-out";
    const never = onSignedOut(() => {});
    const abort = new AbortController();
    const given = call("GET", "/v1/a", { signal: abort.signal });
    await vi.waitFor(() => expect(send).toHaveBeenCalledTimes(4));
    abort.abort(new Error("given up"));
    await expect(given).rejects.toThrow("given up");
    never();
    await expect(call("GET", "/v1/a")).rejects.toThrow(ApiError); // nobody who could ask
  });
});
