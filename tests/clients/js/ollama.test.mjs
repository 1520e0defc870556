// Ollama's package for JavaScript.
import assert from "node:assert/strict";
import test from "node:test";
import { ASK, CITY, MODEL, TOOLS, fleet, client } from "./fleet.mjs";

const { Ollama } = client("ollama");
const asking = (key) =>
  new Ollama({ host: fleet.url, headers: { Authorization: `Bearer ${key}` } });
const sdk = asking(fleet.key);
const EXACT = { model: MODEL, messages: ASK, options: { temperature: 0, num_predict: 12 } };
const CALL = { ...EXACT, options: { temperature: 0, num_predict: 60 } };

test("models are listed, shown and seen in memory", async () => {
  const name = `${MODEL}:latest`;
  assert.ok((await sdk.list()).models.some((each) => each.name === name));
  assert.ok((await sdk.ps()).models.some((each) => each.name === name));
  const { capabilities } = await sdk.show({ model: MODEL });
  assert.ok(["completion", "tools", "embedding"].every((each) => capabilities.includes(each)));
});

test("a stream says the same and counts the same", async () => {
  const whole = await sdk.chat(EXACT);
  let text = "";
  let last;
  for await (const each of await sdk.chat({ ...EXACT, stream: true })) {
    text += each.message.content;
    last = each;
  }
  assert.equal(text, whole.message.content);
  assert.equal(last.eval_count, whole.eval_count);
});

test("a tool is called", async () => {
  const { message } = await sdk.chat({ ...CALL, tools: TOOLS });
  const [call] = message.tool_calls;
  assert.equal(call.function.name, "weather");
  assert.ok(["Paris", "Rome"].includes(call.function.arguments.city));
});

test("a schema is kept", async () => {
  const { message } = await sdk.chat({ ...CALL, format: CITY });
  assert.deepEqual(Object.keys(JSON.parse(message.content)), ["city"]);
});

test("embeddings are answered", async () => {
  const { embeddings } = await sdk.embed({ model: MODEL, input: ["a cat", "a dog"] });
  assert.deepEqual(embeddings.map((each) => each.length), [576, 576]);
});

test("refusals have a status", async () => {
  await assert.rejects(asking("sk-nobody-has-this-key").list(), { status_code: 401 });
  await assert.rejects(sdk.chat({ ...EXACT, model: "nothing-like-it" }), { status_code: 404 });
});

test("an aborted stream frees its slot", async () => {
  for (let n = 0; n < 3; n++) {
    const stream = await sdk.chat({ ...CALL, options: {}, stream: true });
    await assert.rejects(async () => {
      for await (const _ of stream) stream.abort();
    }, { name: "AbortError" });
  }
  assert.ok((await sdk.chat(EXACT)).done);
});
