// The data stream, as ai 4 reads it: callChatApi is what its useChat calls.
import assert from "node:assert/strict";
import { callChatApi, extractMaxToolInvocationStep, generateId, processDataStream, shouldResubmitMessages } from "@ai-sdk/ui-utils";
import { base, end, id, session, test, thread } from "./world.mjs";

class Chat {
  messages = [];
  constructor(name, options = {}) {
    this.body = { session_id: id(name) };
    this.options = options;
  }
  async say(content, extra = {}) {
    const user = { id: generateId(), role: "user", content, parts: [{ type: "text", text: content }], ...extra };
    await this.ask([...this.messages, user]);
  }
  async ask(messages) {
    this.messages = messages;
    const before = { count: messages.length, step: extractMaxToolInvocationStep(messages.at(-1)?.toolInvocations) };
    await callChatApi({
      api: `${base}/api/chat`,
      body: { id: "ignored", messages, ...this.body },
      streamProtocol: "data",
      headers: undefined,
      credentials: undefined,
      abortController: undefined,
      restoreMessagesOnFailure: () => {},
      onResponse: (answer) => {
        this.response = answer;
      },
      onUpdate: ({ message }) => {
        this.messages = [...messages, structuredClone(message)];
      },
      onFinish: (message, details) => {
        this.finish = details;
      },
      onToolCall: undefined,
      generateId,
      fetch: undefined,
      lastMessage: messages.at(-1),
    });
    // The original's page has maxSteps 5: it must not post again by itself.
    assert.equal(
      shouldResubmitMessages({ originalMaxToolInvocationStep: before.step, originalMessageCount: before.count, maxSteps: 5, messages: this.messages }),
      false,
      "the client would post again",
    );
  }
  get last() {
    return this.messages.at(-1);
  }
}

await test("text, code and its output", async () => {
  const chat = new Chat("sum");
  await chat.say("the sum in v4");
  assert.equal(chat.response.headers.get("x-vercel-ai-data-stream"), "v1");
  assert.equal(chat.last.content, "I compute it.Done.");
  assert.equal(chat.last.reasoning, "Hm.");
  const [call] = chat.last.toolInvocations;
  assert.equal(chat.last.toolInvocations.length, 1);
  assert.equal(call.state, "result");
  assert.deepEqual(call.args, { code: 'x = "ä😀"\nprint(len(x) * 21)' });
  assert.deepEqual(Object.keys(call.result).slice(0, 3), ["code", "outputs", "success"]);
  assert.deepEqual(call.result.outputs, [{ output_type: "stream", name: "stdout", text: "42\n" }]);
  assert.equal(call.result.success, true);
  assert.equal(chat.finish.finishReason, "stop");
  assert.deepEqual(chat.finish.usage, { promptTokens: 220, completionTokens: 13, totalTokens: 233 });
  assert.deepEqual(chat.last.parts.filter((p) => p.type === "step-start").length, 2);

  await chat.say("the weather in v4");
  assert.equal(chat.last.toolInvocations[0].result.current.temperature_2m, 7.5);
  assert.equal(chat.last.content, "Mild.");

  // reload(): the same messages without the answer.
  await chat.ask(chat.messages.slice(0, -1));
  assert.equal(chat.last.content, "Mild.");
  const detail = await session("the sum in v4");
  assert.equal(detail.items.length, 7);
  assert.equal(detail.items[5].siblings.length, 2);
});

await test("a tool that failed", async () => {
  const chat = new Chat("both");
  await chat.say("both at once, in v4");
  assert.equal(chat.last.toolInvocations[1].result, null);
  assert.equal(chat.last.content, "Both.");
});

await test("attachments", async () => {
  const chat = new Chat("files");
  await chat.say("look at the file", { experimental_attachments: [{ name: "tiny.csv", contentType: "text/csv", url: "data:text/csv;base64,YSxiCjEsMgo=" }] });
  assert.equal(chat.last.toolInvocations[0].result.outputs[0].text, "a,b\n1,2\n");
});

await test("a conversation that began elsewhere", async () => {
  const chat = new Chat("moved");
  chat.messages = [
    { id: "a", role: "user", content: "old question in v4" },
    { id: "b", role: "assistant", content: "old answer", toolInvocations: [{ state: "result", toolCallId: "c1", toolName: "python_interpreter", args: { code: "y = 5" }, result: { code: "y = 5", outputs: [], success: true } }] },
  ];
  await chat.say("remember");
  assert.equal(chat.last.content, "I remember.");
  assert.deepEqual(thread(await session("old question in v4")), ["user old question in v4", "cell y = 5", "assistant old answer", "user remember", "assistant I remember."]);
});

await test("an error of the model", async () => {
  const chat = new Chat("fail");
  await assert.rejects(chat.say("fail now"), /key/i);
});

await test("requests that are refused, as by FastAPI", async () => {
  const post = (body) => fetch(`${base}/api/chat`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  let answer = await post({ messages: [{ role: "user", content: "hello" }] });
  assert.equal(answer.status, 400);
  assert.deepEqual(await answer.json(), { detail: "No session ID" });
  answer = await post({ session_id: "x", messages: [{ role: "user", content: [] }] });
  assert.equal(answer.status, 422);
  assert.deepEqual(await answer.json(), { detail: [{ type: "string_type", loc: ["body", "messages", 0, "content"], msg: "Input should be a valid string", input: [] }] });
  answer = await post({ session_id: "x" });
  assert.equal(answer.status, 422);
  assert.equal((await answer.json()).detail[0].type, "missing");
});

await test("every line by itself", async () => {
  const answer = await fetch(`${base}/api/chat?protocol=data`, {
    method: "POST",
    body: JSON.stringify({ session_id: id("raw"), messages: [{ role: "user", content: "the sum, raw" }] }),
  });
  const seen = [];
  await processDataStream({
    stream: answer.body,
    onStartStepPart: () => seen.push("start-step"),
    onTextPart: () => seen.push("text"),
    onReasoningPart: () => seen.push("reasoning"),
    onToolCallStreamingStartPart: () => seen.push("call-start"),
    onToolCallDeltaPart: () => seen.push("call-delta"),
    onToolCallPart: () => seen.push("call"),
    onToolResultPart: () => seen.push("result"),
    onFinishStepPart: () => seen.push("finish-step"),
    onFinishMessagePart: () => seen.push("finish"),
    onErrorPart: (text) => assert.fail(text),
  });
  const once = seen.filter((s, i) => s !== seen[i - 1]);
  assert.deepEqual(once, ["start-step", "reasoning", "text", "call-start", "call-delta", "call", "result", "finish-step", "start-step", "text", "finish-step", "finish"]);
});

end();
