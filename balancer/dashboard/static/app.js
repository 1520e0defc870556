// App: which view is shown, the live stream, the key, the theme.

import { hasKey, live, ownKey, Refused, useKey } from "./api.js";
import { h, prose, show } from "./dom.js";
import { changed, listen, page, received, restarted, state } from "./store.js";
import { chat } from "./views/chat.js";
import { charts } from "./views/charts.js";
import { fleet } from "./views/fleet.js";
import { models } from "./views/models.js";
import { requests } from "./views/requests.js";
import { usage } from "./views/usage.js";

const VIEWS = { fleet, live: charts, requests, models, usage, chat };
const NAMES = { fleet: "Fleet", live: "Live", requests: "Requests", models: "Models", usage: "Usage", chat: "Chat" };
const AGAIN_SECONDS = [1, 2, 4, 8];

const at = (id) => document.getElementById(id);

// ---- views

/** `#requests/ID` is the view `requests`, told `ID`. */
function place() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  return name in VIEWS ? [name, decoded(rest.join("/"))] : ["fleet", ""];
}

/** An address that was cut off or typed by hand may be no valid one. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function render() {
  const [name, rest] = place();
  show(at("nav"), Object.keys(VIEWS).map((each) => tab(each, each === name)));
  show(at("tools"), connection(), keyButton(), themeButton());
  const allowed = name === "chat" || state.access === "all" || state.access === "unknown";
  show(at("main"), banner(), h("div", { key: name, class: `view ${name}` }, allowed ? VIEWS[name](rest) : locked()));
}

function tab(name, here) {
  return h("a", { key: name, href: `#${name}`, "aria-current": here && "page" }, NAMES[name]);
}

function locked() {
  const why = state.access === "chat"
    ? "This key may use models. An admin key shows the fleet."
    : "This balancer asks for a key.";
  return h("section", { class: "empty" }, h("h1", {}, "A key is needed"), h("p", {}, why),
    h("p", {}, prose("On the balancer's machine, `edgeserve key new --admin --name browser` makes one.")),
    h("button", { class: "main", type: "button", onclick: () => page.askKey() }, "Enter a key"));
}

function banner() {
  if (state.problem) return h("p", { class: "banner" }, prose(state.problem));
  return state.now.draining && h("p", { class: "banner" }, "The balancer is shutting down: running requests end, new ones are refused.");
}

let seen = place()[0];

addEventListener("hashchange", () => {
  const [name, rest] = place();
  at("said").textContent = "";
  document.title = `${NAMES[name]} · EdgeServe`;
  const came = name !== seen;
  seen = name;
  render();
  if (came) {
    at("main").focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  if (rest) document.querySelector("tr.open")?.scrollIntoView({ block: "nearest" });
});

// ---- what the page says and asks

page.say = (sentence) => {
  show(at("said"), sentence && h("p", {}, prose(sentence)));
  clearTimeout(page.said);
  page.said = setTimeout(() => show(at("said")), 8000);
};

page.whisper = (sentence) => show(at("whispered"), sentence);

page.askKey = (why = "") => {
  const field = h("input", { id: "key", type: "password", autocomplete: "off", spellcheck: "false", required: true });
  const entered = (event) => {
    event.preventDefault();
    useKey(field.value);
    at("ask").close();
    connect();
  };
  const forget = () => {
    useKey("");
    at("ask").close();
    connect();
  };
  at("ask").replaceChildren(
    h("form", { onsubmit: entered },
      h("h2", { id: "ask-title" }, "Key"),
      why && h("p", { class: "bad" }, prose(why)),
      h("label", { for: "key" }, "An admin key shows and changes the fleet; any other key can chat."),
      field,
      h("p", { class: "note" }, "It stays in this tab, and is forgotten when the tab is closed."),
      h("div", { class: "buttons" },
        hasKey() && h("button", { type: "button", onclick: forget }, "Forget the key"),
        h("button", { type: "button", onclick: () => at("ask").close() }, "Cancel"),
        h("button", { class: "main" }, "Use this key"))));
  at("ask").showModal();
};

function connection() {
  const [kind, text] = state.connected ? ["ok", "live"] : state.access === "all" ? ["warn", "reconnecting"] : ["off", "not live"];
  return h("span", { class: `connection ${kind}` }, h("i", { class: `dot ${kind}` }), text);
}

const keyButton = () => h("button", { class: "quiet", type: "button", onclick: () => page.askKey() }, "Key");

const THEMES = { "": "Auto", light: "Light", dark: "Dark" };

function themeButton() {
  const root = document.documentElement;
  const now = root.dataset.theme ?? "";
  const next = Object.keys(THEMES)[(Object.keys(THEMES).indexOf(now) + 1) % 3];
  const turn = () => {
    if (next) root.dataset.theme = next;
    else delete root.dataset.theme;
    localStorage.setItem("edgeserve-theme", next);
    changed();
  };
  return h("button", { class: "quiet", type: "button", onclick: turn, "aria-label": `Theme: ${THEMES[now]}` }, THEMES[now]);
}

// ---- the live stream

let following = new AbortController();

/** Find out what the key allows, and follow the stream for as long as the page is open. */
async function connect() {
  following.abort();
  const mine = (following = new AbortController());
  for (let tries = 0; !mine.signal.aborted; tries++) {
    try {
      await follow(mine.signal);
      tries = 0;
    } catch (error) {
      if (mine.signal.aborted) return;
      if (error instanceof Refused && [401, 403].includes(error.status)) return refused(error);
      state.problem = tries > 0 ? unreachable(error) : state.problem;
    }
    state.connected = false;
    changed();
    await new Promise((done) => setTimeout(done, 1000 * AGAIN_SECONDS[Math.min(tries, 3)]));
  }
}

async function follow(signal) {
  if (!hasKey()) await ownKey();
  const stream = await live(signal);
  restarted();
  Object.assign(state, { connected: true, access: "all", problem: "" });
  for await (const [name, data] of stream) received(name, data);
}

function unreachable(error) {
  return error instanceof Refused
    ? error.message
    : `The balancer does not answer at ${location.origin}. What is shown is old. The page goes on by itself when it is back.`;
}

async function refused(error) {
  state.access = "none";
  state.connected = false;
  if (error.status === 403) state.access = "chat";
  changed();
  if (error.status === 401) page.askKey(hasKey() ? error.message : "");
}

listen(render);
render();
connect();
