// The UI message stream, as the chat of ai 5, 6 or 7 reads it: the package's
// own AbstractChat and DefaultChatTransport, without React.
import assert from "node:assert/strict";
import { base, end, id, letGo, session, test, thread, until, v1 } from "./world.mjs";

const { AbstractChat, DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls } = await import(process.env.CAESARION_CLIENT);

class State {
  status = "ready";
  error = undefined;
  constructor(messages) {
    this.messages = messages;
  }
  pushMessage = (message) => {
    this.messages = this.messages.concat(message);
  };
  popMessage = () => {
    this.messages = this.messages.slice(0, -1);
  };
  replaceMessage = (index, message) => {
    this.messages = this.messages.toSpliced(index, 1, message);
  };
  snapshot = (thing) => structuredClone(thing);
}

class Chat extends AbstractChat {
  constructor(name, { messages = [], ...options } = {}) {
    const data = [];
    const seen = { requests: 0, preliminary: 0 };
    const state = new State(messages);
    super({
      id: id(name),
      state,
      onData: (part) => data.push(part),
      // Nothing that the server ran may be sent again by itself.
      sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
      onToolCall: () => assert.fail("the client was asked to run a tool"),
      transport: new DefaultChatTransport({
        api: `${base}/api/chat`,
        fetch: (...args) => {
          seen.requests++;
          return fetch(...args);
        },
        ...options,
      }),
    });
    Object.assign(this, { data, seen });
  }
  /** What the chat shows, without what differs between majors. */
  get shown() {
    return this.messages.map((m) => `${m.role}: ${m.parts.map(shownPart).filter(Boolean).join(" | ")}`);
  }
  async say(text, options) {
    await this.sendMessage({ text, ...options });
    assert.equal(this.error, undefined, this.error?.stack);
    assert.equal(this.status, "ready");
  }
}

function shownPart(part) {
  if (part.type === "text" || part.type === "reasoning") {
    assert.equal(part.state ?? "done", "done");
    return part.type === "text" ? part.text : `(${part.text})`;
  }
  if (part.type.startsWith("tool-")) return `${part.type} ${part.state}`;
  return part.type === "step-start" ? "" : part.type;
}

const lastTool = (chat) => chat.messages.at(-1).parts.filter((p) => p.type.startsWith("tool-")).at(-1);

await test("text, code and its output", async () => {
  const chat = new Chat("sum");
  await chat.say("the sum, please");
  assert.deepEqual(chat.shown, ["user: the sum, please", "assistant: (Hm.) | I compute it. | tool-python_interpreter output-available | Done."]);
  const tool = lastTool(chat);
  assert.deepEqual(tool.input, { code: 'x = "ä😀"\nprint(len(x) * 21)' });
  assert.equal(tool.providerExecuted, true);
  assert.ok(!tool.preliminary);
  const { code, outputs, success, status, executionCount } = tool.output;
  assert.deepEqual({ code, outputs, success, status, executionCount }, {
    code: tool.input.code,
    outputs: [{ output_type: "stream", name: "stdout", text: "42\n" }],
    success: true,
    status: "ok",
    executionCount: 1,
  });
  const metadata = chat.messages.at(-1).metadata;
  assert.equal(metadata.status, "ok");
  assert.equal(metadata.usage.inputTokens, 220);
  assert.ok(metadata.sessionId.startsWith("ses_"));
  assert.ok(chat.data.some((d) => d.type === "data-execution" && d.data.type === "stream" && d.data.text === "42\n"));
  assert.equal(chat.messages.at(-1).parts.filter((p) => p.type === "step-start").length, 2);
  assert.equal(chat.seen.requests, 1);

  await test("the next message, with a tool that is no code", async () => {
    await chat.say("the weather, too");
    assert.equal(chat.shown.at(-1), "assistant: tool-get_current_weather output-available | Mild.");
    assert.equal(lastTool(chat).output.current.temperature_2m, 7.5);
    assert.deepEqual(lastTool(chat).input, { latitude: 52.52, longitude: 13.41 });
  });

  await test("regenerate", async () => {
    const before = chat.messages.at(-1).id;
    await chat.regenerate();
    assert.equal(chat.status, "ready");
    assert.equal(chat.shown.at(-1), "assistant: tool-get_current_weather output-available | Mild.");
    assert.notEqual(chat.messages.at(-1).id, before);
    const detail = await v1("GET", `/v1/sessions/${metadata.sessionId}`);
    assert.deepEqual(thread(detail), [
      "user the sum, please", "assistant I compute it.", `cell ${code}`, "assistant Done.",
      "user the weather, too", "tool get_current_weather", "assistant Mild.",
    ]);
    assert.equal(detail.items[5].siblings.length, 2);
  });

  await test("edit", async () => {
    await chat.say("an error, then", { messageId: chat.messages[0].id });
    assert.equal(chat.shown.length, 2);
    const tool = lastTool(chat);
    assert.equal(tool.output.success, true);
    assert.equal(tool.output.status, "error");
    assert.equal(tool.output.outputs[0].ename, "ZeroDivisionError");
    const detail = await v1("GET", `/v1/sessions/${metadata.sessionId}`);
    assert.deepEqual(thread(detail), ["user an error, then", "cell 1 / 0", "assistant It failed."]);
    assert.equal(detail.items[0].siblings.length, 2);
  });
});

await test("two calls at once, and one that is refused", async () => {
  const chat = new Chat("both");
  await chat.say("both at once");
  assert.equal(chat.shown.at(-1), "assistant: tool-python_interpreter output-available | tool-send_mail output-error | Both.");
  assert.match(lastTool(chat).errorText, /There are: python_interpreter/);
});

await test("an error of the model", async () => {
  const chat = new Chat("fail");
  await chat.sendMessage({ text: "fail now" });
  assert.equal(chat.status, "error");
  assert.match(chat.error.message, /key/i);
});

await test("a request that is refused", async () => {
  const chat = new Chat("", {});
  await chat.sendMessage({ text: " " });
  assert.equal(chat.status, "error");
  assert.match(chat.error.message, /no message of the user/);
  const answer = await fetch(`${base}/api/chat?protocol=ui`, { method: "POST", body: '{"id":"x","messages":[{"role":"user"}]}' });
  assert.equal(answer.status, 400);
  assert.match(await answer.text(), /messages.*parts/);
});

await test("only the last message is sent", async () => {
  const chat = new Chat("short", {
    prepareSendMessagesRequest: ({ id, messages }) => ({ body: { id, message: messages.at(-1) } }),
  });
  await chat.say("the weather of today");
  await chat.say("the sum of it");
  assert.equal(chat.shown.length, 4);
  assert.equal((await session("weather of today")).items.length, 7);
});

await test("a conversation that began elsewhere", async () => {
  const chat = new Chat("moved", {
    messages: [
      { id: "m1", role: "user", parts: [{ type: "text", text: "earlier question" }] },
      { id: "m2", role: "assistant", parts: [
        { type: "step-start" },
        { type: "tool-python_interpreter", toolCallId: "c1", state: "output-available", input: { code: "y = 5" }, output: { code: "y = 5", outputs: [], success: true } },
        { type: "step-start" },
        { type: "text", text: "earlier answer", state: "done" },
      ] },
    ],
  });
  await chat.say("remember");
  assert.equal(chat.shown.at(-1), "assistant: I remember.");
  assert.deepEqual(thread(await session("earlier question")), ["user earlier question", "cell y = 5", "assistant earlier answer", "user remember", "assistant I remember."]);
});

await test("attachments", async () => {
  const chat = new Chat("files");
  await chat.say("look at the file", { files: [{ type: "file", mediaType: "text/csv", filename: "tiny.csv", url: "data:text/csv;base64,YSxiCjEsMgo=" }] });
  assert.equal(chat.shown.at(-1), "assistant: tool-python_interpreter output-available | Read.");
  assert.equal(lastTool(chat).output.outputs[0].text, "a,b\n1,2\n");
});

await test("resume and stop", async () => {
  const first = new Chat("wait");
  assert.equal(await first.resumeStream(), undefined);
  assert.equal(first.status, "ready");
  const asked = first.sendMessage({ text: "wait for me" });
  await until("a running cell", () => first.data.some((d) => d.data.type === "stream" && d.data.text.includes("waiting")));
  const detail = await session("wait for me");

  // The page is loaded anew: what it kept are the messages of the person.
  const second = new Chat("wait", { messages: first.messages.slice(0, 1) });
  const resumed = second.resumeStream();
  await until("the replay", () => second.messages.length === 2 && lastTool(second)?.state !== undefined);
  await first.stop();
  await asked;
  assert.equal((await v1("GET", `/v1/sessions/${detail.id}`)).turn?.status, "running", "closing the connection ended the turn");
  await letGo(detail);
  await resumed;
  assert.equal(second.error, undefined, second.error?.stack);
  assert.deepEqual(second.shown, ["user: wait for me", "assistant: Wait. | tool-python_interpreter output-available | Here you are."]);
  assert.equal(lastTool(second).output.outputs[0].text, "waiting\ngone\n");
  assert.equal(second.data.some((d) => d.type === "data-execution"), true);

  const third = new Chat("wait", { messages: second.messages });
  const long = third.sendMessage({ text: "wait for ever" });
  await until("a running cell", async () => (await v1("GET", `/v1/sessions/${detail.id}`)).items.at(-1).status === "running");
  const answer = await fetch(`${base}/api/chat/${encodeURIComponent(third.id)}/stop`, { method: "POST" });
  assert.equal(answer.status, 204);
  await long;
  assert.equal(third.status, "ready");
  assert.equal(third.messages.at(-1).metadata.status, "stopped");
  assert.equal((await fetch(`${base}/api/chat/${encodeURIComponent(third.id)}/stream`)).status, 204);
});

end();
