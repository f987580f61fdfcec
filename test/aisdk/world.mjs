// What both protocols' tests share: the server under test and what they ask it.
import assert from "node:assert/strict";

export const base = process.env.CAESARION_URL;
export const id = (name) => `${process.env.CAESARION_CLIENT}-${name}`;

export async function v1(method, path, body) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(base + path, options);
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${answer.ok ? "" : await answer.text()}`);
  return answer.status === 204 ? undefined : answer.json();
}

/** The session with this text in it. */
export async function session(text) {
  const { sessions } = await v1("GET", `/v1/sessions?query=${encodeURIComponent(text)}`);
  assert.equal(sessions.length, 1, `sessions with “${text}”: ${sessions.length}`);
  return v1("GET", `/v1/sessions/${sessions[0].id}`);
}

export const thread = (detail) => detail.items.map((item) => `${item.kind} ${item.text ?? item.code ?? item.tool.name}`);

/** Lets the cell of the scenario “wait” go on. */
export async function letGo(detail) {
  const answer = await fetch(`${base}/v1/sessions/${detail.id}/files/content?path=/workspace/go`, { method: "PUT", body: "!" });
  assert.ok(answer.ok, `upload: ${answer.status}`);
}

export async function until(what, ready) {
  const end = Date.now() + 60_000;
  for (;;) {
    const value = await ready();
    if (value) return value;
    assert.ok(Date.now() < end, `never came: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const failures = [];
export async function test(name, run) {
  try {
    await run();
    console.log(`ok ${name}`);
  } catch (error) {
    failures.push(name);
    console.log(`not ok ${name}\n${error.stack}`);
  }
}

export function end() {
  process.exitCode = failures.length > 0 ? 1 : 0;
}
