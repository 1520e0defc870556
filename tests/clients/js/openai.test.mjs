// OpenAI's package for JavaScript.
import assert from "node:assert/strict";
import test from "node:test";
import { ASK, MODEL, TOOLS, fleet, client } from "./fleet.mjs";

const { default: OpenAI } = client("openai");
const asking = (more) =>
  new OpenAI({ baseURL: `${fleet.url}/v1`, apiKey: fleet.key, maxRetries: 0, ...more });
const sdk = asking();
const EXACT = { model: MODEL, messages: ASK, max_tokens: 12, temperature: 0 };

test("models are listed", async () => {
  const found = [];
  for await (const each of sdk.models.list()) found.push(each.id);
  assert.ok(found.includes(MODEL));
});

test("a stream says the same and counts the same", async () => {
  const whole = await sdk.chat.completions.create(EXACT);
  let text = "";
  let usage;
  const stream_options = { include_usage: true };
  for await (const each of await sdk.chat.completions.create({ ...EXACT, stream: true, stream_options })) {
    text += each.choices[0]?.delta.content ?? "";
    usage = each.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
});

test("a tool is called in a stream", async () => {
  const asked = { ...EXACT, max_tokens: 60, tools: TOOLS, tool_choice: "required" };
  const final = await sdk.chat.completions.stream(asked).finalChatCompletion();
  const [call] = final.choices[0].message.tool_calls;
  assert.equal(call.function.name, "weather");
  assert.ok(["Paris", "Rome"].includes(JSON.parse(call.function.arguments).city));
});

test("embeddings are answered", async () => {
  const answer = await sdk.embeddings.create({ model: MODEL, input: ["a cat", "a dog"] });
  assert.deepEqual(answer.data.map((each) => each.embedding.length), [576, 576]);
});

test("responses are streamed", async () => {
  const asked = { model: MODEL, input: "Say hello.", max_output_tokens: 8, stream: true };
  const types = [];
  for await (const each of await sdk.responses.create(asked)) types.push(each.type);
  assert.ok(types.includes("response.output_text.delta"));
});

test("refusals are the exceptions that programs catch", async () => {
  const stranger = asking({ apiKey: "sk-nobody-has-this-key" });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  const model = "nothing-like-it";
  await assert.rejects(sdk.chat.completions.create({ ...EXACT, model }), OpenAI.NotFoundError);
});

test("an aborted stream frees its slot", async () => {
  for (let n = 0; n < 3; n++) {
    const stream = await sdk.chat.completions.create({ ...EXACT, max_tokens: 2000, stream: true });
    for await (const _ of stream) break;
    stream.controller.abort();
  }
  assert.ok((await sdk.chat.completions.create(EXACT)).choices.length);
});

test("an exceeded limit says when to come back", async () => {
  const single = asking({ apiKey: fleet.single });
  const stream = await single.chat.completions.create({ ...EXACT, max_tokens: 2000, stream: true });
  await assert.rejects(single.chat.completions.create(EXACT), (error) => {
    assert.ok(error instanceof OpenAI.RateLimitError);
    return Number(error.headers.get("retry-after")) >= 1;
  });
  stream.controller.abort();
  const patient = asking({ apiKey: fleet.single, maxRetries: 5 });
  assert.ok((await patient.chat.completions.create(EXACT)).choices.length);
});
