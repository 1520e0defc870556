// Chat: try a model; each answer says which machine gave it, and how fast.

import { ask, events, keysUsed } from "../api.js";
import { h, prose } from "../dom.js";
import { NONE, seconds, speed } from "../format.js";
import { changed, page } from "../store.js";

const talk = [];
const known = { at: 0, key: 0, models: null, problem: "" };
const AGAIN_SECONDS = 10;
let chosen = "";
let stopping = null;

export function chat() {
  refresh();
  return [h("div", { class: "head" }, h("h1", {}, "Chat"), picker()), h("div", { class: "talk" }, talk.length ? talk.map(said) : start()), form()];
}

async function refresh() {
  if (known.key === keysUsed && Date.now() - known.at < 1000 * AGAIN_SECONDS) return;
  const mine = keysUsed;
  Object.assign(known, { at: Date.now(), key: mine });
  try {
    const found = (await (await ask("/v1/models")).json()).data;
    if (mine !== keysUsed) return;
    known.models = found.filter((each) => !each.abilities || each.abilities.includes("chat"));
    known.problem = "";
  } catch (error) {
    if (mine !== keysUsed) return;
    known.problem = error.message;
  }
  if (!known.models?.some((each) => each.id === chosen)) chosen = known.models?.[0]?.id ?? "";
  changed();
}

function picker() {
  const pick = (event) => (chosen = event.target.value);
  const names = (known.models ?? []).flatMap((each) => [each.id, ...(each.variants?.length > 1 ? each.variants.map((one) => one.name) : [])]);
  return h("div", { class: "picker" }, h("label", { for: "model" }, "Model"),
    h("select", { id: "model", onchange: pick }, names.map((each) => h("option", { key: each, value: each }, each))),
    talk.length > 0 && h("button", { type: "button", class: "quiet", onclick: () => (stopping?.abort(), (talk.length = 0), changed()) }, "Begin anew"));
}

function start() {
  if (known.problem) return h("p", { class: "bad" }, prose(known.problem));
  if (known.models && !known.models.length) return h("p", { class: "note" }, "No model that can chat. ", h("a", { href: "#models" }, "Pull one"), ".");
  return h("p", { class: "note" }, "Ask something. What you write goes to your machines only.");
}

function said(each, at) {
  if (each.role === "user") return h("div", { key: at, class: "said user" }, h("h2", { class: "hidden" }, "You"), h("p", {}, each.content));
  return h("div", { key: at, class: "said" }, h("h2", { class: "hidden" }, "Answer"), each.thought && h("details", { class: "more" }, h("summary", {}, "Thoughts"), h("p", {}, each.thought)),
    h("p", {}, each.content || (each.open ? "…" : "")), each.problem && h("p", { class: "bad" }, prose(each.problem)), each.node && facts(each));
}

function facts(each) {
  return h("p", { class: "note facts" },
    h("b", {}, each.node), ` with ${each.model}`, each.attempts > 1 && h("span", { class: "warn" }, `, ${each.attempts} attempts`),
    each.first !== null && `, first token ${seconds(each.first)}`, each.rate ? `, ${speed(each.rate)}` : "",
    !each.open && [" · ", h("a", { href: `#requests/${encodeURIComponent(each.id)}` }, "why there")]);
}

// ---- asking

function form() {
  const send = (event) => {
    event.preventDefault();
    const field = event.target.elements.words;
    const words = field.value.trim();
    if (!words || stopping || !chosen) return;
    field.value = "";
    answer(words);
  };
  const typed = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      event.target.form.requestSubmit();
    }
  };
  return h("form", { class: "ask", onsubmit: send },
    h("label", { for: "words", class: "hidden" }, "Your message"),
    h("textarea", { id: "words", name: "words", rows: "2", placeholder: "Message", onkeydown: typed }),
    stopping ? h("button", { key: "stop", type: "button", onclick: stop }, "Stop") : h("button", { key: "send", class: "main", disabled: !chosen }, "Send"));
}

/** Who stops by the keyboard can write on: the button goes, and would take the focus along. */
function stop(event) {
  stopping?.abort();
  if (event.detail === 0) event.currentTarget.form.elements.words.focus();
}

// An answer stays in sight as it grows, until its reader scrolls up; at the end it does again.
let follows = true;
let seenAt = 0;
let movedTo = 0;

addEventListener("wheel", (event) => event.deltaY < 0 && (follows = false), { passive: true });
addEventListener("scroll", () => {
  if (scrollY < seenAt) follows = false;
  else if (scrollY !== movedTo && innerHeight + scrollY > document.documentElement.scrollHeight - 8) follows = true;
  seenAt = scrollY;
});

function grown() {
  changed();
  requestAnimationFrame(() => {
    if (!follows || !document.querySelector(".talk")) return;
    scrollTo(0, document.documentElement.scrollHeight);
    movedTo = scrollY;
  });
}

async function answer(words) {
  const told = talk.filter((each) => each.content).map(({ role, content }) => ({ role, content }));
  const mine = { role: "assistant", content: "", thought: "", node: "", model: "", id: "", attempts: 1, first: null, rate: null, open: true, problem: "" };
  talk.push({ role: "user", content: words }, mine);
  stopping = new AbortController();
  follows = true;
  grown();
  try {
    const body = { model: chosen, stream: true, messages: [...told, { role: "user", content: words }] };
    await stream(body, mine, stopping.signal);
  } catch (error) {
    if (error.name !== "AbortError") mine.problem = error.message;
    if (error.status === 401) page.askKey(error.message);
  }
  mine.open = false;
  stopping = null;
  page.whisper(mine.problem || `${mine.node} has answered: ${mine.content}`);
  grown();
}

async function stream(body, mine, signal) {
  const began = performance.now();
  const response = await ask("/v1/chat/completions", { method: "POST", body, signal });
  const of = (name) => response.headers.get(`x-edgeserve-${name}`) ?? "";
  Object.assign(mine, { node: of("node") || NONE, model: of("model"), id: of("request-id"), attempts: Number(of("attempts") || 1) });
  let first = 0;
  let pieces = 0;
  for await (const [, data] of events(response)) {
    if (!data || data === "[DONE]") continue;
    const event = JSON.parse(data);
    if (event.error) throw new Error(event.error.message);
    const delta = event.choices?.[0]?.delta ?? {};
    mine.thought += delta.reasoning_content ?? "";
    mine.content += delta.content ?? "";
    if (!delta.content && !delta.reasoning_content) continue;
    first ||= performance.now();
    pieces += 1;
    mine.first = (first - began) / 1000;
    mine.rate = pieces > 4 ? (1000 * (pieces - 1)) / (performance.now() - first) : null;
    grown();
  }
}
