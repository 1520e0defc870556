// DOM: build elements from data, and make the page equal to them.
//
// A view returns what the page should be. `show` changes only what differs, so that
// focus, selection and scroll position stay. Text becomes text nodes, never markup.

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "path", "rect", "line", "circle", "polyline"]);

/** Build an element: `h("p", { class: "note", onclick: go }, "text", other)`. */
export function h(tag, props, ...children) {
  const made = DRAWN.has(tag)
    ? document.createElementNS(SVG, tag)
    : document.createElement(tag);
  made.handlers = {};
  for (const [name, value] of Object.entries(props ?? {})) {
    if (name === "key") made.key = value;
    else if (name === "still") made.still = value;
    else if (name.startsWith("on")) made.handlers[name] = made[name] = value;
    else if (value !== false && value !== null && value !== undefined)
      made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...nodes(children));
  return made;
}

/** Make the children of `parent` equal to `children`. */
export function show(parent, ...children) {
  sync(parent, nodes(children));
}

function nodes(children) {
  return children
    .flat(Infinity)
    .filter((each) => each !== null && each !== undefined && each !== false && each !== "")
    .map((each) => (each instanceof Node ? each : document.createTextNode(String(each))));
}

function sync(parent, wanted) {
  const keyed = new Map();
  for (const each of parent.childNodes) if (each.key !== undefined) keyed.set(each.key, each);
  let at = parent.firstChild;
  for (const want of wanted) {
    const found = want.key === undefined ? unkeyed(at) : keyed.get(want.key);
    if (found && alike(found, want)) {
      if (found === at) at = at.nextSibling;
      else parent.insertBefore(found, at);
      change(found, want);
    } else {
      parent.insertBefore(want, at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

const unkeyed = (node) => (node && node.key === undefined ? node : null);

const alike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName;

function change(have, want) {
  if (have.nodeType === Node.TEXT_NODE) {
    if (have.data !== want.data) have.data = want.data;
    return;
  }
  for (const name in have.handlers ?? {}) if (!(name in want.handlers)) have[name] = null;
  Object.assign(have, want.handlers);
  have.handlers = want.handlers;
  attributes(have, want);
  if (!want.still) sync(have, [...want.childNodes]);
}

/** What users change themselves stays: whether a `details` is open. */
function attributes(have, want) {
  for (const { name } of [...have.attributes])
    if (!want.hasAttribute(name) && name !== "open" && name !== "style") have.removeAttribute(name);
  for (const { name, value } of want.attributes)
    if (name !== "open" && have.getAttribute(name) !== value) have.setAttribute(name, value);
}

/** Turn a sentence with `commands` in backticks into text and code. */
export function prose(sentence) {
  return String(sentence ?? "")
    .split("`")
    .map((part, at) => (at % 2 ? h("code", {}, part) : part));
}

/** A command to be copied. */
export function command(text) {
  const copy = async (event) => {
    const button = event.currentTarget;
    await navigator.clipboard?.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  };
  const button = h("button", { class: "quiet", type: "button", onclick: copy, still: true }, "Copy");
  return h("div", { class: "command" }, h("code", { tabindex: "0" }, text), button);
}
