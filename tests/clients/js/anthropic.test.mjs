// Anthropic's package for JavaScript.
import assert from "node:assert/strict";
import test from "node:test";
import { ASK, CITY, MODEL, fleet, client } from "./fleet.mjs";

const { default: Anthropic } = client("@anthropic-ai/sdk");
const asking = (apiKey) => new Anthropic({ baseURL: fleet.url, apiKey, maxRetries: 0 });
const sdk = asking(fleet.key);
const ASKED = { model: MODEL, messages: ASK, max_tokens: 60 };

test("a message is streamed", async () => {
  const stream = sdk.messages.stream(ASKED);
  let text = "";
  stream.on("text", (piece) => { text += piece; });
  const final = await stream.finalMessage();
  assert.equal(final.content[0].text, text);
  assert.ok(final.usage.output_tokens > 0);
});

test("a tool is called", async () => {
  const tools = [{ name: "weather", description: "Tells it.", input_schema: CITY }];
  const answer = await sdk.messages.create({ ...ASKED, tools, tool_choice: { type: "any" } });
  assert.equal(answer.content.find((each) => each.type === "tool_use").name, "weather");
});

test("refusals are the exceptions that programs catch", async () => {
  const stranger = asking("sk-nobody-has-this-key");
  await assert.rejects(stranger.messages.create(ASKED), Anthropic.AuthenticationError);
  const unknown = { ...ASKED, model: "nothing-like-it" };
  await assert.rejects(sdk.messages.create(unknown), Anthropic.NotFoundError);
});
