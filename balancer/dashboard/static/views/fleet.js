// Fleet: each machine with its engines, its condition, and what is wrong with it.

import { tell } from "../api.js";
import { command, h, prose } from "../dom.js";
import { bytes, digits, label, many, percent, speed } from "../format.js";
import { page, rate, state } from "../store.js";
import { log } from "./log.js";

const ORDER = ["asking", "unreachable", "suspect", "seen", "draining", "up", "asleep", "revoked"];
const STATES = {
  up: ["ok", "up"],
  draining: ["warn", "shutting down"],
  asleep: ["off", "asleep"],
  suspect: ["warn", "silent"],
  unreachable: ["bad", "unreachable"],
  seen: ["off", "seen"],
  revoked: ["off", "kept out"],
  asking: ["warn", "asks to join"],
};
export const ENGINES = {
  absent: ["off", "on disk"],
  loading: ["warn", "loading"],
  ready: ["ok", "ready"],
  busy: ["ok", "busy"],
  leaving: ["warn", "leaving"],
  stuck: ["bad", "stuck"],
  failed: ["bad", "failed"],
  quarantined: ["bad", "not restarted"],
};
const HOT = 80;
const LOW_MEMORY = 0.05;
const LOW_BATTERY = 20;

export function fleet() {
  if (state.nodes === null) return waiting("Fleet");
  const nodes = [...state.nodes].sort((one, other) => rank(one) - rank(other) || String(one.name).localeCompare(other.name));
  return [h("h1", {}, "Fleet"), summary(nodes), nodes.length ? h("div", { class: "machines" }, nodes.map(machine)) : alone(), more()];
}

const rank = (node) => (node.state === "asking" ? 0 : trouble(node).length ? 1 : 2 + ORDER.indexOf(node.state));

export const waiting = (title) => [h("h1", {}, title), h("p", { class: "note" }, "Waiting for the balancer…")];

// ---- the whole

function summary(nodes) {
  const up = nodes.filter((each) => each.state === "up");
  const engines = up.flatMap((each) => each.report.engines).filter((each) => ["ready", "busy"].includes(each.state));
  const slots = engines.reduce((sum, each) => sum + each.slots, 0);
  const busy = engines.reduce((sum, each) => sum + each.busy, 0);
  return h("dl", { class: "figures" },
    figure("machines up", `${up.length}`, nodes.length > up.length && ` of ${nodes.length}`),
    figure("tokens per second", digits(rate())),
    figure("slots in use", `${busy}`, ` of ${slots}`),
    figure("requests waiting", `${state.now.waiting}`));
}

export function figure(name, value, unit) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value, unit && h("small", {}, unit)));
}

function alone() {
  return h("section", { class: "empty" },
    h("h2", {}, "No machine yet"),
    h("p", {}, "On this machine, or on another one of this network, start a node. It is found by itself."),
    command("edgeserve node start"));
}

function more() {
  return h("details", { class: "more" }, h("summary", {}, "Add a machine"),
    h("p", {}, prose("A machine with the fleet token (`edgeserve token new`) is found by itself on this network. Where multicast does not get through, name the balancer:")),
    command(`edgeserve node start --balancer ${location.origin}`));
}

// ---- a machine

function machine(node) {
  const [kind, text] = STATES[node.state] ?? ["off", node.state];
  const name = node.name || node.url || "a machine";
  const engines = (node.report?.engines ?? []).filter((each) => each.state !== "absent");
  const absent = (node.report?.engines ?? []).length - engines.length;
  return h("article", { key: node.id ?? node.url, class: "machine", "aria-label": name },
    h("div", { class: "who" },
      h("h2", {}, h("i", { class: `dot ${kind}` }), name),
      h("p", { class: "note" }, h("span", { class: kind }, text), node.report && ` · ${hardware(node.report.hardware)}`)),
    h("div", { class: "engines" }, engines.map((each) => engine(node, each)), nothing(node, engines, absent)),
    node.report ? condition(node) : h("div", { class: "condition" }),
    problems(node),
    log(node),
    node.state === "asking" && joining(node));
}

function hardware(found) {
  const gpus = found.gpus.map((each) => each.name);
  return gpus.length ? gpus.join(", ") : `${found.cpu.model || found.platform.machine}, ${many(found.cpu.physical_cores, "core")}`;
}

function nothing(node, engines, absent) {
  if (!node.report || (engines.length && !absent)) return null;
  if (!engines.length && !absent) return h("p", { class: "note" }, "No model. ", h("a", { href: "#models" }, "Pull one"), ".");
  return h("p", { class: "note" }, h("a", { href: "#models" }, `${many(absent, "model")} on disk`), ", loaded when asked for");
}

function engine(node, each) {
  const [kind, text] = ENGINES[each.state] ?? ["off", each.state];
  const told = each.state === "loading" && each.progress !== null ? `loading ${percent(each.progress)}` : text;
  const now = rate(node.id, each.id);
  return h("div", { key: each.id, class: "engine" },
    h("span", { class: "model" }, each.model || each.variant, " ", each.variant !== each.model && h("b", { class: "label" }, label(each.variant)),
      each.pinned && h("b", { class: "label" }, "pinned"),
      each.group?.length > 0 && h("b", { class: "label" }, `with ${each.group.filter((one) => !one.head).map((one) => one.name).join(", ")}`)),
    each.state === "ready" || each.state === "busy" ? slots(each) : h("span", { class: kind }, told),
    spark(node, each),
    h("span", { class: "rate" }, now > 0 ? speed(now) : ""));
}

const SPARK = { seconds: 60, width: 72, height: 18 };

/** The last minute of an engine's tokens/s; nothing where it was idle. */
function spark(node, each) {
  const rates = state.ticks.slice(-SPARK.seconds).map((tick) => rate(node.id, each.id, tick));
  const most = Math.max(...rates);
  if (!(most > 0)) return h("span", { class: "spark" });
  const x = (at) => SPARK.width - ((rates.length - 1 - at) * SPARK.width) / (SPARK.seconds - 1);
  const points = rates.map((value, at) => `${x(at).toFixed(1)},${(SPARK.height - 1.5 - ((SPARK.height - 3) * value) / most).toFixed(1)}`);
  return h("span", { class: "spark" }, h("svg", { viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, width: SPARK.width, height: SPARK.height, "aria-hidden": "true" }, h("polyline", { points: points.join(" ") })));
}

function slots(each) {
  const shown = Math.min(each.slots, 16);
  return h("span", { class: "slots", role: "img", "aria-label": `${each.busy} of ${many(each.slots, "slot")} in use` },
    Array.from({ length: shown }, (_, at) => h("i", { class: at < each.busy ? "busy" : "" })), each.slots > shown && `+${each.slots - shown}`);
}

function condition(node) {
  const { memory, thermal, power, cpu, gpus } = node.report.hardware;
  const gpu = gpus.length && sum(gpus, "memory_total");
  return h("dl", { class: "condition" },
    gauge("memory", memory.total - memory.available, memory.total),
    gpu ? gauge("GPU memory", gpu - sum(gpus, "memory_free"), gpu) : null,
    fact("processor", percent(cpu.load)),
    thermal.celsius !== null && fact("temperature", `${Math.round(thermal.celsius)} °C`, thermal.celsius >= HOT && "warn"),
    power.watts && node.state !== "asleep" && fact("power", `${digits(power.watts)} W`),
    power.percent !== null && fact("battery", `${Math.round(power.percent)} %${power.on_mains ? ", charging" : ""}`, !power.on_mains && power.percent < LOW_BATTERY && "warn"));
}

const sum = (list, field) => list.reduce((all, each) => all + each[field], 0);

const fact = (name, value, kind) => h("div", {}, h("dt", {}, name), h("dd", { class: kind || "" }, value));

function gauge(name, used, total) {
  const share = total ? used / total : 0;
  return h("div", {}, h("dt", {}, name),
    h("dd", {}, h("meter", { min: "0", max: "1", value: share.toFixed(3), high: 1 - LOW_MEMORY, "aria-label": `${name} in use` }), h("span", {}, `${bytes(used)} of ${bytes(total)}`)));
}

// ---- what is wrong

/** What is wrong with a machine: sentences, each with its remedy where one is known. */
function trouble(node) {
  const found = node.problem && node.state !== "asking" ? [node.problem] : [];
  if (!node.report) return found;
  const { power, memory } = node.report.hardware;
  found.push(...node.report.problems, ...node.report.slowed, ...failing(node));
  for (const each of node.report.engines)
    if (["failed", "quarantined", "stuck"].includes(each.state)) found.push(`${each.variant} ${ENGINES[each.state][1]}${each.reason ? `: ${each.reason}` : ""}`);
  for (const each of node.report.unmet) found.push(`${each.model}: ${each.reason}; ${each.remedy}`);
  if (power.percent !== null && !power.on_mains) found.push("It runs on battery: other machines go first. Plug it in to use it fully.");
  if (memory.total && memory.available / memory.total < LOW_MEMORY) found.push("Hardly any memory is free. Unload a model, or serve a smaller variant.");
  return [...new Set(found)];
}

const FAILING = { suspect: "It is being probed.", open: "It gets no requests now, and is tried again by itself.", "half-open": "It is being tried again." };

const failing = (node) => Object.entries(node.health ?? {}).filter(([, how]) => how in FAILING).map(([engine, how]) => `${engine} has failed lately. ${FAILING[how]}`);

function problems(node) {
  const found = trouble(node);
  return [found.length > 0 && h("ul", { class: "problems" }, found.map((each) => h("li", {}, prose(each)))), unplanned(node.report?.available ?? [])];
}

/** What is on its disk and cannot be served there. */
function unplanned(found) {
  if (!found.length) return null;
  return h("details", { class: "more problems" }, h("summary", { class: "note" }, `${many(found.length, "model")} on its disk that it cannot serve`),
    h("ul", {}, found.map((each) => h("li", {}, prose(`${each.variant || each.file}: ${each.reason}; ${each.remedy}`)))));
}

function joining(node) {
  const answer = (how) => async () => {
    try {
      await tell(`/nodes/${encodeURIComponent(node.id)}/${how}`, how === "approve" ? { code: node.code } : {});
    } catch (error) {
      page.say(error.message);
    }
  };
  return h("div", { class: "join" },
    h("p", {}, "It shows a code. Let it in only if that is ", h("b", { class: "code" }, node.code), "."),
    h("div", { class: "buttons" },
      h("button", { class: "main", type: "button", onclick: answer("approve") }, "Same code: let it in"),
      h("button", { type: "button", onclick: answer("deny") }, "Send it away")));
}
