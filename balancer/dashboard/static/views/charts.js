// Live: tokens/s, times to the first token, requests; the last minutes of each.

import { h } from "../dom.js";
import { clock, digits, seconds } from "../format.js";
import { latest, MINUTES, nodeName, rate, state } from "../store.js";
import { figure, waiting } from "./fleet.js";
import { firstToken } from "./requests.js";

const COLOURS = 6;
const MANY = 12; // of more machines, the legend names those that did something
const HEIGHT = 200;

export function charts() {
  if (state.nodes === null) return waiting("Live");
  const times = firstTimes(Date.now() / 1000);
  const all = times.map((each) => each.seconds).sort((one, other) => one - other);
  const at = (share) => all[Math.min(all.length - 1, Math.floor(share * all.length))];
  return [h("h1", {}, "Live"),
    h("dl", { class: "figures" },
      figure("tokens per second", digits(rate())),
      figure("first token, median", seconds(at(0.5))),
      figure("first token, 95 of 100", seconds(at(0.95))),
      figure("running", `${Math.max(0, state.now.running - state.now.waiting)}`, state.now.waiting > 0 && ` + ${state.now.waiting} waiting`)),
    chart("Tokens per second", "by machine", speeds, digits),
    chart("Time to first token", "each request, by machine", firsts, seconds),
    chart("Requests", "running and waiting", inside, digits)];
}

// ---- the data: [names, columns of numbers]

/** Seconds from the first that is known, a minute at least, up to now. */
function span() {
  const end = Math.floor(state.now.at ?? Date.now() / 1000);
  const known = [...state.ticks.slice(0, 1).map((each) => each.at), ...latest().map((each) => each.arrived_at)];
  const began = Math.floor(Math.max(end - MINUTES * 60, Math.min(end - 60, ...known)));
  return Array.from({ length: end - began }, (_, at) => began + 1 + at);
}

const machines = () => (state.nodes ?? []).filter((each) => each.report).map((each) => each.id);

/** Seconds before the page was open are filled with what requests have told. */
function speeds() {
  const axis = span();
  const ticks = new Map(state.ticks.map((each) => [Math.floor(each.at), each]));
  const began = state.ticks[0]?.at ?? Infinity;
  const before = latest().filter((each) => each.state === "done").flatMap(spans);
  const ids = machines();
  const columns = ids.map((id) => {
    const mine = before.filter((each) => each.node === nodeName(id));
    return axis.map((second) => {
      if (second >= Math.floor(began)) return ticks.has(second) ? rate(id, null, ticks.get(second)) : null;
      return mine.reduce((sum, each) => sum + each.rate * Math.max(0, Math.min(each.to, second + 1) - Math.max(each.from, second)), 0);
    });
  });
  return { names: ids.map(nodeName), axis, columns };
}

function spans(request) {
  return request.attempts.filter((each) => each.actual?.tokens_per_second).map((each) => {
    const to = request.arrived_at + request.seconds;
    const lasted = each.actual.answer_tokens / each.actual.tokens_per_second;
    return { node: each.node, from: to - lasted, to, rate: each.actual.tokens_per_second };
  });
}

function firstTimes(now) {
  return latest()
    .filter((each) => firstToken(each) && each.attempts.length)
    .map((each) => ({ at: each.arrived_at + firstToken(each), seconds: firstToken(each), node: each.attempts.at(-1).node }))
    .filter((each) => each.at > now - MINUTES * 60)
    .sort((one, other) => one.at - other.at);
}

function firsts() {
  const end = state.now.at ?? Date.now() / 1000;
  const points = firstTimes(end);
  const [first] = span();
  const names = machines().map(nodeName);
  const columns = names.map((name) => [null, ...points.map((each) => (each.node === name ? each.seconds : null)), null]);
  return { names, axis: [first, ...points.map((each) => each.at), end], columns, points: true };
}

function inside() {
  const axis = span();
  const ticks = new Map(state.ticks.map((each) => [Math.floor(each.at), each]));
  const column = (field) => axis.map((second) => ticks.get(second)?.[field] ?? null);
  const running = axis.map((second) => (ticks.has(second) ? Math.max(0, ticks.get(second).running - ticks.get(second).waiting) : null));
  return { names: ["running", "waiting"], axis, columns: [running, column("waiting")] };
}

// ---- drawing

/** From milliseconds to minutes: each factor of ten is as high as the next. */
const TIMES = { distr: 3, range: (_, low, high) => [10 ** Math.floor(Math.log10(Math.min(low ?? 0.1, 0.1))), 10 ** Math.ceil(Math.log10(Math.max(high ?? 1, 1.01)))] };
const tens = (_, splits) => splits.map((each) => (isTen(each) ? each : null));
const isTen = (value) => Math.abs(Math.log10(value) % 1) < 1e-6;

const drawn = new Map();

function chart(title, what, data, unit) {
  const found = data();
  const empty = found.columns.every((column) => column.every((each) => !each));
  requestAnimationFrame(() => draw(title, found, unit));
  return h("section", { class: "chart", key: title },
    h("h2", {}, title, h("small", {}, ` ${what}`)),
    h("ul", { class: "legend" }, found.names.map((name, at) => named(found, at) && h("li", {}, h("i", { class: `series s${at % COLOURS}` }), name, h("b", {}, latestOf(found, at, unit))))),
    h("div", { class: "plot", id: `plot-${title.replaceAll(" ", "-")}`, "data-title": title, still: true, role: "img", "aria-label": `${title}, the last ${MINUTES} minutes` }),
    h("p", { class: "note over", hidden: !empty }, "Nothing yet. Ask a model something under ", h("a", { href: "#chat" }, "Chat"), "."));
}

const named = (found, at) => found.names.length <= MANY || found.columns[at].some((each) => each > 0);

function latestOf(found, at, unit) {
  const value = found.columns[at].findLast((each) => each !== null);
  return value === undefined ? "" : unit(value);
}

function draw(title, found, unit) {
  const place = document.getElementById(`plot-${title.replaceAll(" ", "-")}`);
  if (!place?.clientWidth || !window.uPlot) return;
  const shape = JSON.stringify([found.names, place.clientWidth, colour(place, "--text")]);
  const data = [found.axis, ...found.columns];
  const before = drawn.get(title);
  if (before?.shape === shape && place.contains(before.plot.root)) return before.plot.setData(data);
  before?.plot.destroy();
  drawn.set(title, { shape, plot: new window.uPlot(options(place, found, unit), data, place) });
}

function options(place, found, unit) {
  const grid = { stroke: colour(place, "--line"), width: 1 };
  const axis = { stroke: colour(place, "--muted"), grid, ticks: { show: false }, font: "12px system-ui", labelFont: "12px system-ui" };
  const time = (_, splits) => splits.map((each) => clock(each).slice(0, each % 60 ? 8 : 5));
  return {
    width: place.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    scales: { y: found.points ? TIMES : { range: (_, low, high) => [0, Math.max(high * 1.1, 1)] } },
    axes: [{ ...axis, values: time, size: 30, space: 80, grid: { show: false }, incrs: [15, 30, 60] }, { ...axis, size: 58, space: 45, ...(found.points && { filter: tens, grid: { ...grid, filter: tens } }), values: (_, splits) => splits.map((each) => (each !== null && (found.points || Number.isInteger(each)) ? unit(each) : "")) }],
    series: [{}, ...found.names.map((name, at) => series(place, name, at, found.points))],
  };
}

function series(place, name, at, points) {
  const stroke = colour(place, `--s${at % COLOURS}`);
  if (points) return { label: name, stroke, paths: () => null, points: { show: true, size: 6, fill: stroke, width: 0 } };
  return { label: name, stroke, width: 1.75, points: { show: false } };
}

/** Canvas knows no CSS variables: ask what colour one is here. */
function colour(place, name) {
  place.style.color = `var(${name})`;
  const found = getComputedStyle(place).color;
  place.style.color = "";
  return found;
}
