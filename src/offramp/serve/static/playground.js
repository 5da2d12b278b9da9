// The playground: a prompt, the dial, outputs, and races of full depth against the dial.

import { Api, ApiError } from "./api.js";
import { Card } from "./card.js";
import { exitField, label, mark, positions, promise, settings, start, verifies, where } from "./dial.js";
import { $, el, layerName, setDepth } from "./dom.js";
import { verdict } from "./run.js";
import { connect } from "./server.js";
import { request } from "./wire.js";

const api = new Api();
let engine = null;
let byHandAllowed = false;
let dial = ["off"];
let running = null; // The AbortController of what runs.
let conversation = [];
let lastSent = "";

connect(api, (info) => {
  engine = info.engine;
  byHandAllowed = engine.exit_layers.length > 0 && info.settings.allow_criteria !== false;
  dial = positions(engine, info.settings.max_risk);
  $("dial").max = dial.length - 1;
  $("dial").value = dial.indexOf(start(dial, info.settings.exit));
  $("dial-marks").replaceChildren(...dial.map((position) => el("li", { textContent: mark(position) })));
  $("fixed-layer").replaceChildren(...engine.exit_layers.map((layer) => el("option", { textContent: layer })));
  if (!info.chat) {
    $("chat-mode").disabled = true;
    $("prompt-mode").checked = true;
  }
  drawLegend();
  update();
});

function drawLegend() {
  const swatches = [...engine.exit_layers, engine.num_layers].map((layer) => {
    const made = el("span", { className: "tint", textContent: layerName(layer, engine.num_layers) });
    setDepth(made, layer, engine.num_layers);
    return made;
  });
  $("legend").replaceChildren("Left at", ...swatches);
}

/** The exit field of what is set, and a name for it. */
function chosen() {
  if (!$("by-hand").checked) {
    const position = dial[$("dial").value];
    return { name: label(position), exit: exitField(position) };
  }
  const fixed = isFixed() && { options: { layer: Number($("fixed-layer").value) } };
  const exit = {
    criterion: $("criterion").value,
    threshold: $("threshold").valueAsNumber,
    min_layer: $("min-layer").valueAsNumber,
    kv: $("kv").value,
    max_draft: $("max-draft").valueAsNumber,
    ...fixed,
    trace: true,
  };
  return { name: `${where(exit)}, ${exit.kv}`, exit };
}

/** Make the page agree with what is set and with what runs. */
function update() {
  const byHand = $("by-hand").checked;
  const position = dial[$("dial").value];
  const chat = isChat();
  for (const field of document.querySelectorAll(".chat-only")) field.hidden = !chat;
  for (const field of $("by-hand-fields").querySelectorAll("input, select")) field.disabled = !byHand;
  $("threshold").disabled ||= isFixed(); // What cannot be seen must not be what is wrong.
  $("fixed-layer-field").hidden = !isFixed();
  $("threshold-field").hidden = isFixed();
  $("prompt-label").textContent = chat ? "Message" : "Prompt";
  $("dial").disabled = byHand || dial.length < 2;
  $("dial").setAttribute("aria-valuetext", label(position));
  $("dial-name").textContent = byHand ? "By hand" : label(position);
  if (engine) {
    $("dial-promise").textContent = byHand ? "Exits are set by hand: nothing is promised." : promise(position, engine);
    $("dial-settings").textContent = byHand ? settings(chosen().exit) : settings(engine.resolved?.[position]);
  }
  [...$("dial-marks").children].forEach((item, i) => {
    item.toggleAttribute("data-here", !byHand && dial[i] === position);
  });
  $("by-hand").disabled = !byHandAllowed;
  $("generate").disabled = !engine || Boolean(running);
  $("race").disabled = !engine || Boolean(running) || (!byHand && position === "off");
  $("stop").disabled = !running;
  $("clear").hidden = !chat || !conversation.length;
  document.body.classList.toggle("numbers", $("numbers").checked);
}

function isFixed() {
  return $("criterion").value === "fixed";
}

function isChat() {
  return document.querySelector("[name=mode]:checked").value === "chat";
}

/** What both lanes of a race are asked alike: draws need one seed, or they differ by chance. */
function asked(racing) {
  const system = $("system").value.trim();
  const prompt = $("prompt").value;
  const given = $("seed").valueAsNumber;
  const seed = racing && Number.isNaN(given) ? Math.floor(Math.random() * 2 ** 31) : given;
  return {
    chat: isChat(),
    prompt,
    messages: [
      ...(system ? [{ role: "system", content: system }] : []),
      ...conversation,
      { role: "user", content: prompt },
    ],
    sampling: {
      max_tokens: $("max-tokens").valueAsNumber,
      temperature: $("temperature").valueAsNumber,
      top_p: $("top-p").valueAsNumber,
      ...(Number.isNaN(seed) ? {} : { seed }),
    },
    runnersUp: $("runners-up").checked,
  };
}

/** Run what is set, or a race, and put the outputs on the page. */
async function go(racing) {
  if (running || !engine || !$("ask").reportValidity()) return;
  const ask = asked(racing);
  if (!ask.chat) conversation = []; // Its turns leave the page.
  const talk = conversation;
  const dialled = chosen();
  const lanes = racing ? [{ name: label("off"), exit: exitField("off") }, dialled] : [dialled];
  const about = (exit) => ({ numLayers: engine.num_layers, drafts: verifies(exit, engine), tell });
  const cards = lanes.map(({ name, exit }) => new Card(name, about(exit)));
  const last = cards.at(-1);
  const result = el("p", { className: "verdict", hidden: true });
  const side = el("div", { className: "lanes" }, ...cards.map(({ element }) => element));
  const turn = el("section", { className: "turn" }, result, side);
  if (ask.chat) turn.prepend(el("p", { className: "asked", textContent: ask.prompt }));
  if (ask.chat && conversation.length) $("turns").append(turn);
  else $("turns").replaceChildren(turn);
  $("error").hidden = true;
  lastSent = ask.prompt;

  running = new AbortController();
  update();
  const { signal } = running;
  const run = (i) => {
    const { path, body } = request(ask, lanes[i].exit);
    return cards[i].show(api.stream(path, body, signal));
  };
  try {
    if (racing) await warmUp(ask, signal);
    if (racing && $("together").checked) await Promise.all([run(0), run(1)]);
    else for (const i of lanes.keys()) await run(i);
    if (racing) {
      result.textContent = verdict(cards[0].run, last.run);
      result.hidden = false;
    }
    $("announce").textContent = racing ? result.textContent : `The output has ${last.run.count} tokens.`;
  } catch (error) {
    running.abort(); // The other lane.
    if (error.name === "AbortError") $("announce").textContent = "Stopped.";
    else showError(error);
    for (const { state } of cards) if (state.textContent === "waiting") state.textContent = "not run";
  }
  if (ask.chat && last.run.text && talk === conversation) {
    conversation.push({ role: "user", content: ask.prompt }, { role: "assistant", content: last.run.text });
    if ($("prompt").value === ask.prompt) $("prompt").value = ""; // Else the next message has been begun.
  }
  running = null;
  update();
}

/** Have the prompt read once, so that both lanes find it in the prefix cache. */
function warmUp(ask, signal) {
  const { path, body } = request({ ...ask, sampling: { ...ask.sampling, max_tokens: 1 }, runnersUp: false }, "off");
  const { stream, stream_options, ...plain } = body;
  return api.post(path, plain, signal);
}

function tell(words) {
  $("detail").textContent = words;
}

function showError(error) {
  const known = error instanceof ApiError;
  if (!known) console.error(error);
  const said = known ? error.message : `The page has failed: ${error.message}`;
  $("error").replaceChildren(el("strong", { textContent: said }));
  if (error.hint) $("error").append(el("br"), error.hint);
  $("error").hidden = false;
  if (error.status === 401) {
    $("key-box").open = true;
    $("key").focus();
  }
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  go(false);
});
$("ask").addEventListener(
  "invalid",
  (event) => {
    const box = event.target.closest("details");
    if (box) box.open = true; // The browser points at nothing in a closed one, and says nothing.
  },
  true,
);
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) go(false);
  if (event.key === "ArrowUp" && !$("prompt").value && lastSent) {
    event.preventDefault();
    $("prompt").value = lastSent;
  }
});
$("race").addEventListener("click", () => go(true));
$("stop").addEventListener("click", () => running?.abort());
$("clear").addEventListener("click", () => {
  running?.abort();
  conversation = [];
  $("turns").replaceChildren();
  $("prompt").focus();
  update();
});
$("ask").addEventListener("input", update);
update();
