// Models: what the fleet has, where it is loaded; pull, load, unload, remove, pin, limit.

import { tell } from "../api.js";
import { command, h, prose } from "../dom.js";
import { bytes, label, many, percent, speed } from "../format.js";
import { page, state } from "../store.js";
import { ENGINES, waiting } from "./fleet.js";

const OVER = ["done", "failed", "cancelled"];

export function models() {
  if (state.models === null) return waiting("Models");
  return [h("h1", {}, "Models"), pullForm(), pulls(), state.models.length ? state.models.map(model) : nothing()];
}

function nothing() {
  return h("section", { class: "empty" }, h("h2", {}, "No model yet"),
    h("p", {}, "Pull a small one to try; it takes 93 MB:"), command("edgeserve pull smollm2-135m-instruct --everywhere"));
}

/** Do something; say what came of it, or the balancer's sentence why not. */
function act(path, body, said, method) {
  return async (event) => {
    const button = event?.submitter ?? event?.currentTarget;
    if (button) button.disabled = true;
    try {
      const answer = await tell(path, body, method);
      page.say(typeof said === "function" ? said(answer) : said);
    } catch (error) {
      refused(error);
    } finally {
      if (button) button.disabled = false;
      if (button && document.activeElement === document.body) button.focus(); // disabled, it lost the focus
    }
  };
}

function refused(error) {
  page.say(error.message);
  if (error.code === "admin_only") page.askKey(error.message);
}

// ---- pulls

function pullForm() {
  const up = (state.nodes ?? []).filter((each) => each.state === "up");
  const pull = (event) => {
    event.preventDefault();
    const { source, to } = Object.fromEntries(new FormData(event.target));
    const body = to ? { source, nodes: [to] } : { source, everywhere: true };
    const said = (answers) => answers.map((each) => (each.problem ? `${each.name}: ${each.problem}` : "")).filter(Boolean).join("; ") || `Pulling ${source}.`;
    act("/pulls", body, said)(event);
  };
  return h("form", { class: "pull", onsubmit: pull },
    h("label", { for: "source" }, "Pull a model"),
    h("input", { id: "source", name: "source", required: true, placeholder: "name, hf.co/owner/repository or URL", autocomplete: "off", spellcheck: "false" }),
    h("label", { for: "to", class: "hidden" }, "To which machine"),
    h("select", { id: "to", name: "to" }, h("option", { value: "" }, "every machine"), up.map((each) => h("option", { key: each.id, value: each.id }, each.name))),
    h("button", { class: "main", disabled: up.length === 0 }, "Pull"));
}

function pulls() {
  if (!state.pulls.length) return null;
  return h("section", {}, h("h2", {}, "Pulls"), h("ul", { class: "pulls" }, state.pulls.map(onePull)));
}

function onePull({ name, pull }) {
  const share = pull.total ? pull.done / pull.total : 0;
  const going = !OVER.includes(pull.state);
  const path = `/pulls/${encodeURIComponent(pull.id)}`;
  const stop = act(path, undefined, "Stopped; what has come is kept.", "DELETE");
  const dismiss = act(path, undefined, `The pull of ${pull.source} to ${name} is off the list.`, "DELETE");
  return h("li", { key: pull.id },
    h("div", {}, h("b", {}, pull.source), ` to ${name} `, h("span", { class: pull.state === "failed" ? "bad" : "note" }, pull.problem ? prose(pull.problem) : pull.step || pull.state)),
    going && h("progress", { max: "1", value: share.toFixed(4), "aria-label": `Pull of ${pull.source} to ${name}` }),
    going && h("span", { class: "note" }, `${bytes(pull.done)} of ${bytes(pull.total)}, ${percent(share)}`),
    going
      ? h("button", { type: "button", onclick: stop }, "Stop")
      : h("button", { type: "button", onclick: dismiss, "aria-label": `Dismiss the pull of ${pull.source} to ${name}` }, "Dismiss"));
}

// ---- a model

function model(each) {
  const loaded = each.engines.filter((one) => isLoaded(one.report));
  const byVariant = Map.groupBy(each.engines, (one) => one.report.variant);
  const pinned = each.desired.some((one) => one.pinned);
  const held = !pinned && each.engines.some((one) => one.report.pinned);
  const path = `/models/${encodeURIComponent(each.model)}`;
  return h("article", { key: each.model, class: "card", "aria-label": each.model },
    h("header", {}, h("h2", {}, each.model, " ", (pinned || held) && h("b", { class: "label" }, held ? "pinned by its node" : "pinned")),
      h("p", { class: "note" }, many(byVariant.size, "variant"), loaded.length ? `, loaded on ${loaded.map((one) => one.node).join(", ")}` : ", not loaded"),
      h("div", { class: "buttons" },
        pinned
          ? h("button", { type: "button", onclick: act(`${path}/pin`, { off: true }, `${each.model} may be unloaded again.`) }, "Unpin")
          : !held && h("button", { type: "button", onclick: act(`${path}/pin`, {}, `${each.model} stays loaded.`), title: "Keep it loaded" }, "Pin"))),
    h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": `Variants of ${each.model}` },
      h("table", {}, h("thead", {}, h("tr", {}, ["Variant", "Machine", "Memory", "Context", "Reads", "Writes", "State", ""].map((text) => (text ? h("th", { scope: "col" }, text) : h("td", {}))))),
        h("tbody", {}, [...byVariant].flatMap(([variant, engines]) => engines.map((one) => line(variant, one)))))),
    each.problems.map((one) => h("p", { class: "problem" }, prose(`${one.node ? `${one.node}: ` : ""}${one.reason}; ${one.remedy}`))),
    each.unplanned.map((one) => h("p", { class: "note" }, prose(`${one.node}, ${one.variant || one.file}: ${one.reason}; ${one.remedy}`))),
    limits(each, path));
}

const isLoaded = (report) => !["absent", "failed", "quarantined"].includes(report.state);

function line(variant, { node, unavailable, report }) {
  const [kind, text] = ENGINES[report.state] ?? ["off", report.state];
  const id = state.nodes?.find((each) => each.name === node)?.id;
  const known = state.speeds.get(`${id} ${report.id}`);
  const guessed = known && !known.measured;
  const path = `/models/${encodeURIComponent(variant)}`;
  const button = (text, does) => h("button", { type: "button", onclick: does, "aria-label": `${text} ${variant} on ${node}` }, text);
  const buttons = isLoaded(report)
    ? [report.pinned ? h("span", { class: "note", title: "Unpin it to unload it" }, "stays: it is pinned") : button("Unload", act(`${path}/unload`, { node: id }, unloaded))]
    : [button("Load", act(`${path}/load`, { node: id }, `${node} loads ${variant}.`)), button("Remove", remove(`${path}/remove`, variant, node, id))];
  return h("tr", { key: `${node} ${report.id}` },
    h("th", { scope: "row" }, label(variant)),
    h("td", { "data-name": "Machine" }, node),
    h("td", { "data-name": "Memory" }, bytes(report.memory)),
    h("td", { "data-name": "Context" }, `${report.context} × ${many(report.slots, "slot")}`),
    h("td", { "data-name": "Reads" }, guessed && "about ", speed(known?.read)),
    h("td", { "data-name": "Writes" }, guessed && "about ", speed(known?.write)),
    h("td", { "data-name": "State" }, h("span", { class: kind, title: report.reason ?? unavailable ?? "" }, h("i", { class: `dot ${kind}` }), report.state === "loading" ? `loading ${percent(report.progress)}` : text)),
    h("td", {}, buttons));
}

/** Ask the machine what it would remove, then the reader, then have it removed. */
function remove(path, variant, node, id) {
  return async (event) => {
    const button = event.currentTarget;
    try {
      const { nodes } = await tell(path, { node: id, preview: true });
      const free = nodes.flatMap((each) => each.files).reduce((sum, file) => sum + file.bytes, 0);
      if (!confirm(`Remove ${variant} from ${node}? ${bytes(free)} come free there.`)) return;
    } catch (error) {
      refused(error);
      return;
    }
    await act(path, { node: id }, `${node} has removed ${variant}.`)({ currentTarget: button });
  };
}

function unloaded(answer) {
  return answer.refused.length ? answer.refused.join("; ") : "It is unloaded once its requests have ended.";
}

// ---- limits

function limits(each, path) {
  const set = each.limits.find((one) => one.model === each.model) ?? {};
  const keep = each.desired.find((one) => one.keep_alive !== null && one.keep_alive !== undefined)?.keep_alive;
  const put = (event) => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(event.target));
    const number = (text) => (text === "" ? null : Number(text));
    const idle = number(given.keep_alive);
    const body = { min: number(given.min), max: number(given.max), ...(idle === (keep ?? null) ? {} : { keep_alive: idle }) };
    act(`${path}/limit`, body, `Limits of ${each.model} are set.`)(event);
  };
  const field = (name, text, value) => {
    const id = `${name} ${each.model}`.replaceAll(" ", "-");
    return h("div", {}, h("label", { for: id }, text), h("input", { id, name, type: "number", min: "0", inputmode: "numeric", value: value ?? "", placeholder: "none" }));
  };
  return h("details", { class: "more" }, h("summary", {}, "Limits"),
    h("form", { class: "limits", onsubmit: put },
      field("min", "At least so many engines", set.min), field("max", "At most so many engines", set.max), field("keep_alive", "Unload after idle seconds", keep),
      h("button", {}, "Set")));
}
