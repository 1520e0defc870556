// Store: what the balancer has told, and the last minutes of it.

export const MINUTES = 5;
const KEPT_REQUESTS = 500;

/** `access`: unknown, all, chat (a key that is no admin's), or none. */
export const state = {
  access: "unknown",
  connected: false,
  problem: "",
  nodes: null,
  models: null,
  pulls: [],
  speeds: new Map(),
  requests: new Map(),
  events: [],
  now: { running: 0, waiting: 0, engines: [] },
  ticks: [],
};

const listeners = new Set();
let asked = false;
let fresh = true;

/** Call `listener` after changes, at most once a frame. */
export const listen = (listener) => listeners.add(listener);

export function changed() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    for (const each of listeners) each();
  });
}

const take = {
  nodes: (data) => (state.nodes = data),
  models: (data) => (state.models = data),
  pulls: (data) => (state.pulls = data),
  speeds: (data) => (state.speeds = new Map(data.map((each) => [`${each.node} ${each.engine}`, each]))),
  events: (data) => (state.events = [...state.events, ...data].slice(-100)),
  requests(data) {
    for (const each of data) {
      state.requests.delete(each.id);
      state.requests.set(each.id, each);
    }
    while (state.requests.size > KEPT_REQUESTS) state.requests.delete(state.requests.keys().next().value);
  },
  now(data) {
    state.now = data;
    if (fresh) return void (fresh = false); // no second has passed yet: it has no rates
    state.ticks.push(data);
    while (state.ticks.length > MINUTES * 60) state.ticks.shift();
  },
};

/** Take in one event of the live stream. */
export function received(name, data) {
  if (!(name in take)) return;
  take[name](JSON.parse(data));
  changed();
}

/** Forget what a stream that broke off has left open. */
export function restarted() {
  fresh = true;
  state.requests.clear();
  state.events = [];
}

/** Requests, the latest first. */
export const latest = () => [...state.requests.values()].sort((one, other) => other.arrived_at - one.arrived_at);

export const nodeName = (id) => state.nodes?.find((each) => each.id === id)?.name ?? "?";

/** Tokens/s now: of the fleet, of a node, or of one engine. */
export function rate(node, engine, tick = state.now) {
  return tick.engines
    .filter((each) => (!node || each.node === node) && (!engine || each.engine === engine))
    .reduce((sum, each) => sum + each.tokens_per_second, 0);
}

/** What a page does for its user: ask for a key, say what happened, tell only screen readers. */
export const page = { askKey: () => {}, say: () => {}, whisper: () => {} };
