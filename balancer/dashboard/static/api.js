// API: requests to this balancer, with the key where there is one, and its live stream.

const KEPT = "edgeserve-key"; // in sessionStorage: gone with the tab
const OWN = "/edgeserve/v1";

let key = sessionStorage.getItem(KEPT) ?? "";

export const hasKey = () => key !== "";

/** How often the key has changed: what an earlier one was told no longer holds. */
export let keysUsed = 0;

/** Use a key from now on, and remember it until the tab is closed. */
export function useKey(secret) {
  key = secret.trim();
  keysUsed += 1;
  if (key) sessionStorage.setItem(KEPT, key);
  else sessionStorage.removeItem(KEPT);
}

/** A refusal; its message is the balancer's sentence. */
export class Refused extends Error {
  constructor(status, sentence, code) {
    super(sentence);
    this.status = status;
    this.code = code;
  }
}

/** Send a request to a path; resolves to a response that is fine. */
export async function ask(path, { method = "GET", body, signal } = {}) {
  const headers = { accept: "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  if (method !== "GET") headers["content-type"] = "application/json";
  const response = await fetch(path, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
    cache: "no-store",
    credentials: "omit",
  });
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const found = await response.json().catch(() => ({}));
  const error = found.error ?? {};
  return new Refused(response.status, error.message ?? `the balancer answers ${response.status}`, error.code);
}

export const get = async (path) => (await ask(OWN + path)).json();

/** Change something. */
export const tell = (path, body = {}, method = "POST") => asAdmin(path, { method, body });

/** Get what only an admin key shows. */
export const look = (path) => asAdmin(path, {});

/** A key that this machine's account has is fetched anew once. */
async function asAdmin(path, options) {
  try {
    return await (await ask(OWN + path, options)).json();
  } catch (error) {
    if (!(error instanceof Refused) || error.code !== "admin_only" || !(await ownKey())) throw error;
    return (await ask(OWN + path, options)).json();
  }
}

/** Get the key that a balancer gives to pages of its own machine; false if it does not. */
export async function ownKey() {
  try {
    key = (await (await ask(`${OWN}/dashboard/key`, { method: "POST", body: {} })).json()).key;
    return true;
  } catch {
    return false;
  }
}

/** Yield `[name, data]` for each server-sent event of a response. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) yield event(block);
  }
}

function event(block) {
  let name = "";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  return [name, data.join("\n")];
}

export const live = async (signal) => events(await ask(`${OWN}/live`, { signal }));
