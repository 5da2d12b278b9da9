// The state of the server, as the header of the playground shows it, and the field for the key.

import { $ } from "./dom.js";

const AGAIN_SECONDS = 2;

/** Ask for `/info` until there is an engine, then call `ready` with it. The key is taken from its field at once. */
export function connect(api, ready) {
  let info = null;
  const take = () => {
    api.key = $("key").value.trim();
    if (info) greet(api, info);
  };
  $("key").addEventListener("change", take);
  take();
  look(api, (found) => {
    info = found;
    ready(info);
  });
}

async function look(api, ready) {
  const info = await api.get("info").catch(() => null);
  if (!info) say("bad", "the server does not answer");
  else if (info.state !== "ready" || !info.engine) say("wait", `the engine is ${info.state}`);
  else {
    greet(api, info);
    ready(info);
    return;
  }
  setTimeout(look, AGAIN_SECONDS * 1000, api, ready);
}

function greet(api, { engine, settings }) {
  const lacking = settings.api_key && !api.key;
  const how = lacking ? "needs an API key" : "ready";
  say(lacking ? "wait" : "good", `${settings.model_name} · ${engine.dtype} · ${how}`);
}

function say(state, words) {
  $("state").dataset.state = state;
  $("state").textContent = words;
}
