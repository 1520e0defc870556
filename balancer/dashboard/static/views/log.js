// Log: the lines that a machine keeps of its log, followed while they are shown.

import { look } from "../api.js";
import { h, prose } from "../dom.js";
import { clock, many } from "../format.js";
import { changed } from "../store.js";

const EVERY = 2000;
const MOST = 500;

const shown = new Map(); // id of a machine → what has come; gone when it is closed

/** A machine's log, closed at first; only nodes of ours keep one. */
export function log(node) {
  if (!node.report || node.report.engines.some((each) => each.kind === "server")) return null;
  const known = shown.get(node.id);
  const turned = (event) => event.currentTarget.open && follow(node.id, event.currentTarget);
  return h("details", { class: "more log", ontoggle: turned }, h("summary", {}, "Log"), known && lines(node, known));
}

function lines(node, { text, came, problem }) {
  return [
    problem && h("p", { class: "problem" }, prose(problem)),
    text && h("pre", { tabindex: "0", role: "region", "aria-label": `Log of ${node.name}` }, text),
    !text && !problem && h("p", { class: "note" }, came ? "It has logged nothing since it started." : "Asking…")];
}

/** Ask for more as long as an element shows it; a page that was left has another one then. */
async function follow(id, element) {
  if (shown.has(id)) return void (shown.get(id).element = element);
  const known = { element, text: "", came: false, problem: "" };
  shown.set(id, known);
  for (let after = ""; known.element.isConnected && known.element.open; ) {
    const last = atEnd(known.element);
    try {
      const found = await look(`/nodes/${encodeURIComponent(id)}/log?after=${encodeURIComponent(after)}`);
      const more = [...(found.dropped ? [`(${many(found.dropped, "earlier line")} no longer kept)`] : []), ...found.lines.map(line)];
      known.text = [...(known.text ? known.text.split("\n") : []), ...more].slice(-MOST).join("\n");
      Object.assign(known, { came: true, problem: "" });
      after = found.next;
    } catch (error) {
      known.problem = error.message;
    }
    changed();
    if (last) requestAnimationFrame(() => requestAnimationFrame(() => toEnd(known.element)));
    await new Promise((done) => setTimeout(done, EVERY));
  }
  shown.delete(id);
}

const line = (each) => `${clock(each.at)} ${each.level === "info" ? "" : `${each.level.toUpperCase()} `}${each.text.replaceAll("\n", " ")}`;

/** Whether the last line is in sight; then it stays so. */
function atEnd(element) {
  const box = element.querySelector("pre");
  return !box || box.scrollHeight - box.scrollTop - box.clientHeight < 8;
}

function toEnd(element) {
  const box = element.querySelector("pre");
  if (box) box.scrollTop = box.scrollHeight;
}
