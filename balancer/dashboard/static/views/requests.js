// Requests: as they flow, and why each went where it did.

import { get } from "../api.js";
import { h, prose } from "../dom.js";
import { clock, label, NONE, seconds, speed } from "../format.js";
import { changed, latest, state } from "../store.js";
import { waiting } from "./fleet.js";

const SHOWN = 100;
const FILTERS = {
  all: ["All", () => true],
  open: ["Open", (each) => each.state !== "done"],
  moved: ["Failed over", (each) => failedOver(each)],
  wrong: ["Not answered", (each) => wrong(each)],
};

let filter = "all";
const explained = new Map();

/** Whether it was at more than one engine. */
const failedOver = (each) => each.attempts.length > 1;

const wrong = (each) => each.state === "done" && !(each.status >= 200 && each.status < 300 && goodEnd(each));
const goodEnd = (each) => each.attempts.at(-1)?.outcome === "answered" || !each.outcome || each.outcome === "answered";

export function requests(open) {
  if (state.nodes === null) return waiting("Requests");
  const matching = latest().filter((each) => FILTERS[filter][1](each) || each.id === open);
  const found = matching.filter((each, at) => at < SHOWN || each.id === open);
  return [h("h1", {}, "Requests"), filters(), found.length ? table(found, open) : nothing()];
}

function filters() {
  const choose = (name) => () => {
    filter = name;
    changed();
  };
  return h("div", { class: "choice", role: "group", "aria-label": "Which requests" },
    Object.entries(FILTERS).map(([name, [text]]) => h("button", { type: "button", "aria-pressed": String(filter === name), onclick: choose(name) }, text)));
}

function nothing() {
  if (filter !== "all") return h("p", { class: "note" }, "None of the latest requests.");
  return h("section", { class: "empty" }, h("h2", {}, "No request yet"),
    h("p", {}, "Ask something under ", h("a", { href: "#chat" }, "Chat"), ", or point a program at ", h("code", {}, `${location.origin}/v1`), "."));
}

// ---- the table

function table(found, open) {
  const heads = ["When", "Model", "Machine", "First token", "Speed", "Took", "Outcome"];
  return h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Requests" },
    h("table", { class: "requests" },
      h("thead", {}, h("tr", {}, heads.map((each) => h("th", { scope: "col" }, each)))),
      h("tbody", {}, found.flatMap((each) => [row(each, each.id === open), each.id === open && reasons(each)]))));
}

function row(each, isOpen) {
  const last = each.attempts.at(-1);
  return h("tr", { key: each.id, class: isOpen ? "open" : "" },
    h("th", { scope: "row" }, h("a", { href: isOpen ? "#requests" : `#requests/${encodeURIComponent(each.id)}`, "aria-expanded": String(isOpen) }, clock(each.arrived_at))),
    h("td", { class: "what" }, last ? name(last.variant) : each.model || NONE),
    h("td", { class: "where" }, path(each)),
    h("td", { "data-name": "First token" }, firstToken(each) ? seconds(firstToken(each)) : "", against(last)),
    h("td", { "data-name": "Speed" }, last?.actual?.tokens_per_second ? speed(last.actual.tokens_per_second) : ""),
    h("td", { "data-name": "Took" }, each.state === "done" ? seconds(each.seconds) : ""),
    h("td", { class: "outcome" }, outcome(each)));
}

/** Seconds to its first token: as the client saw it; in an answer sent whole, at the engine. */
export function firstToken(each) {
  const at = each.attempts.at(-1);
  const [seen, engine] = [each.first_byte_seconds, at?.actual?.first_token_seconds];
  return each.stream ? (seen ?? engine) : (engine ?? seen);
}

const name = (variant) => [variant.split(":")[0], " ", variant.includes(":") && h("b", { class: "label" }, label(variant))];

/** The machines that it was at; after a failover, from where to where. */
function path(each) {
  if (!each.attempts.length) return NONE;
  if (!failedOver(each)) return each.attempts[0].node;
  return [h("span", { class: "lost" }, each.attempts.slice(0, -1).map((one) => one.node).join(" → ")), " → ", each.attempts.at(-1).node];
}

function against(last) {
  const expected = last?.predicted?.first_token_seconds;
  return expected ? h("small", { class: "note" }, ` expected ${seconds(expected)}`) : null;
}

function outcome(each) {
  if (each.state !== "done") return h("span", { class: "warn" }, h("i", { class: "dot warn" }), each.state);
  if (wrong(each)) return h("span", { class: "bad" }, h("i", { class: "dot bad" }), each.outcome ?? `status ${each.status}`);
  if (failedOver(each)) return h("span", { class: "warn" }, h("i", { class: "dot warn" }), "answered, failed over");
  return h("span", { class: "ok" }, h("i", { class: "dot ok" }), "answered");
}

// ---- why

function reasons(each) {
  const known = explained.get(each.id);
  if (!known || known.of !== each.state) explain(each);
  return h("tr", { key: `why ${each.id}`, class: "why" }, h("td", { colspan: "7" }, known ? told(known.found) : h("p", { class: "note" }, "Asking…")));
}

async function explain(each) {
  explained.set(each.id, { of: each.state, found: explained.get(each.id)?.found ?? null });
  try {
    explained.get(each.id).found = await get(`/requests/${encodeURIComponent(each.id)}`);
  } catch (error) {
    explained.get(each.id).found = { problem: error.message };
  }
  changed();
  requestAnimationFrame(() => requestAnimationFrame(reveal));
}

/** Have the reasons in sight that have just come. */
function reveal() {
  const why = document.querySelector(".why");
  if (why && why.getBoundingClientRect().bottom > innerHeight) document.querySelector("tr.open").scrollIntoView({ block: "start" });
}

function told(found) {
  if (!found) return h("p", { class: "note" }, "Asking…");
  if (found.problem) return h("p", { class: "bad" }, prose(found.problem));
  return [
    h("p", { class: "note" }, `${found.path}, from ${found.client}, id `, h("code", {}, found.id), found.waited_seconds > 0.001 && `, waited ${seconds(found.waited_seconds)}`,
      found.outcome && found.outcome !== "answered" && `, ${found.outcome}`),
    found.route && h("p", { class: "note" }, `Route ${found.route.name}: ${found.route.model} answers (${found.route.why})`),
    found.loads?.map((load) => h("p", { class: "note" }, `${load.kind.replace("_", " ")} ${load.model} on ${load.node}${load.seconds ? `, ${seconds(load.seconds)}` : ""}`)),
    found.attempts.map((each, at) => attempt(each, at, found.attempts.length)),
    !found.attempts.length && candidates(found.candidates ?? []),
  ];
}

function attempt(each, at, all) {
  const rows = [
    ["first token", seconds, "first_token_seconds"],
    ["reading the prompt", seconds, "read_seconds"],
    ["prompt", (value) => (value === null || value === undefined ? NONE : `${value} tokens`), "prompt_tokens"],
    ["of it cached", (value) => (value === null || value === undefined ? NONE : `${value} tokens`), "cached_tokens"],
    ["writing", speed, "tokens_per_second"],
  ];
  return h("section", { class: "attempt" },
    h("h2", {}, all > 1 && `Attempt ${at + 1}: `, each.node, " ", h("small", {}, each.resumes ? "went on with the answer, " : "", each.outcome ?? "running", each.seconds && `, ${seconds(each.seconds)}`)),
    each.predicted && h("table", { class: "compare" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "What"), h("th", { scope: "col" }, "Predicted"), h("th", { scope: "col" }, "Actual"))),
      h("tbody", {}, rows.map(([text, unit, field]) => h("tr", {}, h("th", { scope: "row" }, text), h("td", {}, unit(each.predicted[field])), h("td", {}, unit(each.actual?.[field])))))),
    candidates(each.candidates ?? []));
}

function candidates(found) {
  if (!found.length) return null;
  return h("table", { class: "compare" },
    h("thead", {}, h("tr", {}, ["Candidate", "Cost", "Why"].map((each) => h("th", { scope: "col" }, each)))),
    h("tbody", {}, found.map((each) => h("tr", { class: each.chosen ? "chosen" : "" },
      h("th", { scope: "row" }, each.node, " ", h("b", { class: "label" }, label(each.variant))),
      h("td", {}, each.predicted ? seconds(each.predicted.cost_seconds) : NONE),
      h("td", {}, each.chosen && h("span", { class: "ok" }, "chosen: "), each.reason)))));
}
