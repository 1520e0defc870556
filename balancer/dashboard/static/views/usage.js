// Usage: which keys there are, and what each has used. No secret is shown or sent.

import { get, keysUsed } from "../api.js";
import { command, h, prose } from "../dom.js";
import { count, day, NONE } from "../format.js";
import { changed } from "../store.js";
import { figure } from "./fleet.js";

const AGAIN_SECONDS = 10;
const DAYS = { 1: "Today", 7: "7 days", 30: "30 days" };

const known = { at: 0, key: 0, keys: null, rows: [], problem: "" };
let days = "7";

export function usage() {
  refresh();
  if (known.problem) return [h("h1", {}, "Usage"), h("p", { class: "bad" }, prose(known.problem))];
  if (!known.keys) return [h("h1", {}, "Usage"), h("p", { class: "note" }, "Waiting for the balancer…")];
  return [h("h1", {}, "Usage"), choice(), totals(), spent(), h("h2", {}, "Keys"), keys()];
}

async function refresh() {
  if (known.key === keysUsed && Date.now() - known.at < 1000 * AGAIN_SECONDS) return;
  const mine = keysUsed;
  Object.assign(known, { at: Date.now(), key: mine });
  try {
    const [found, rows] = await Promise.all([get("/keys"), get(`/usage?days=${days}`)]);
    if (mine === keysUsed) Object.assign(known, { keys: found, rows, problem: "" });
  } catch (error) {
    if (mine === keysUsed) known.problem = error.message;
  }
  changed();
}

function choice() {
  const choose = (each) => () => {
    days = each;
    known.at = 0;
    changed();
  };
  return h("div", { class: "choice", role: "group", "aria-label": "Time" },
    Object.entries(DAYS).map(([each, text]) => h("button", { type: "button", "aria-pressed": String(each === days), onclick: choose(each) }, text)));
}

const sum = (rows, field) => rows.reduce((all, each) => all + each[field], 0);

function totals() {
  const prompt = sum(known.rows, "prompt_tokens");
  const cached = sum(known.rows, "cached_tokens");
  return h("dl", { class: "figures" },
    figure("requests", count(sum(known.rows, "requests"))),
    figure("prompt tokens", count(prompt), prompt > 0 && ` ${Math.round((100 * cached) / prompt)} % cached`),
    figure("answer tokens", count(sum(known.rows, "answer_tokens"))));
}

function spent() {
  const groups = [...Map.groupBy(known.rows, (each) => `${each.key}\n${each.model}`).values()];
  if (!groups.length) return h("p", { class: "note" }, "Nothing was used in this time.");
  const most = Math.max(...groups.map((rows) => sum(rows, "prompt_tokens") + sum(rows, "answer_tokens")), 1);
  groups.sort((one, other) => sum(other, "answer_tokens") - sum(one, "answer_tokens"));
  return h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Usage by key and model" }, h("table", {},
    h("thead", {}, h("tr", {}, ["Key", "Model", "Requests", "Prompt tokens", "Answer tokens", "Share"].map((each) => h("th", { scope: "col" }, each)))),
    h("tbody", {}, groups.map((rows) => {
      const all = sum(rows, "prompt_tokens") + sum(rows, "answer_tokens");
      return h("tr", {}, h("th", { scope: "row" }, rows[0].key), h("td", { "data-name": "Model" }, rows[0].model),
        h("td", { "data-name": "Requests", class: "number" }, count(sum(rows, "requests"))), h("td", { "data-name": "Prompt tokens", class: "number" }, count(sum(rows, "prompt_tokens"))),
        h("td", { "data-name": "Answer tokens", class: "number" }, count(sum(rows, "answer_tokens"))),
        h("td", { "data-name": "Share" }, h("meter", { min: "0", max: String(most), value: String(all), "aria-label": `Tokens of ${rows[0].key}, ${rows[0].model}` })));
    }))));
}

function keys() {
  const { needed, keys: found } = known.keys;
  if (!found.length) {
    return h("section", { class: "empty" }, h("p", {}, "There are no keys. Everyone who reaches this balancer may use it, which is this machine alone unless it was told otherwise. The first key closes it for all without one:"),
      command("edgeserve key new --name laptop"));
  }
  return [!needed && h("p", { class: "problem" }, "Clients without a key are let in, too."),
    h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Keys" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Name", "May", "Models", "Limits", "Made", "State"].map((each) => h("th", { scope: "col" }, each)))),
      h("tbody", {}, found.map((each) => h("tr", {}, h("th", { scope: "row" }, each.name),
        h("td", { "data-name": "May" }, each.admin ? "change the fleet" : "use models"), h("td", { "data-name": "Models" }, each.models.map(String).join(", ") || "all"),
        h("td", { "data-name": "Limits" }, limitsOf(each)), h("td", { "data-name": "Made" }, day(each.created)), h("td", { "data-name": "State" }, stateOf(each)))))))];
}

function limitsOf(each) {
  const found = [
    each.requests_per_minute && `${count(each.requests_per_minute)} requests/min`,
    each.tokens_per_minute && `${count(each.tokens_per_minute)} tokens/min`,
    each.at_once && `${count(each.at_once)} at once`,
  ].filter(Boolean);
  return found.join(", ") || NONE;
}

function stateOf(each) {
  if (each.revoked) return h("span", { class: "off" }, "revoked ", day(each.revoked));
  if (each.expires && each.expires * 1000 < Date.now()) return h("span", { class: "off" }, "expired ", day(each.expires));
  return h("span", { class: "ok" }, each.expires ? `until ${day(each.expires)}` : "valid");
}
