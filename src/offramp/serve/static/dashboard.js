// The dashboard: scrapes `/metrics` and draws it.

import { Api, ApiError } from "./api.js";
import { Chart } from "./chart.js";
import { $, el, number, percent } from "./dom.js";
import { CALM, LOOK_BACK, charts, point } from "./figures.js";
import { History } from "./history.js";
import { parse } from "./prometheus.js";

/** As far back as a chart can be asked to show. */
const KEEP_SECONDS = 3600;

const api = new Api();
const history = new History(2 * LOOK_BACK);
let shown = []; // Charts with their series.
let timer = 0;
let lost = 0; // Scrapes in a row that had no answer.

async function scrape() {
  clearTimeout(timer);
  const period = Number($("period").value);
  try {
    take(parse(await api.get("metrics", { text: true })));
    lost = 0;
    $("error").hidden = true;
    $("lost").textContent = "";
  } catch (error) {
    const known = error instanceof ApiError;
    if (!known) console.error(error);
    lost += 1;
    say("bad", known ? "no answer" : "the page has failed");
    const said = `${error.message} ${error.hint ?? ""}`;
    if ($("error").textContent !== said) $("error").textContent = said; // An alert is read out whenever it changes.
    $("error").hidden = false;
    $("lost").textContent = lost > 1 ? `${lost} scrapes in a row are lost.` : "";
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(scrape, period * 1000);
}

function take(samples) {
  const now = performance.now() / 1000;
  history.add(now, samples);
  const there = charts(samples);
  const names = ({ id, series }) => JSON.stringify([id, ...series.map(({ name }) => name)]);
  const known = new Map(shown.map((chart) => [names(chart.spec), chart]));
  if (there.map(names).join() !== [...known.keys()].join()) {
    shown = there.map((spec) => known.get(names(spec)) ?? new Chart(spec)); // Others keep what they have drawn.
    $("charts").replaceChildren(...shown.map(({ element }) => element));
  }
  for (const chart of shown) {
    const latest = point(chart.spec.series, history);
    if (latest) chart.add(latest, now - KEEP_SECONDS);
  }
  draw();
  const up = samples.get("engine_up") === 1;
  say(up ? "good" : "wait", up ? "live" : "the engine is not up");
  tiles(samples);
}

function draw() {
  const to = history.latest.t;
  const range = { from: to - Number($("span").value), to, gap: 4 * Number($("period").value) };
  for (const chart of shown) chart.show(range);
}

function tiles(samples) {
  const near = history.window(CALM);
  const far = history.window(LOOK_BACK);
  const left = far?.growth("exit_depth_count");
  const depth = left ? far.growth("exit_depth_sum") / left : null;
  const bytes = samples.get("process_resident_memory_bytes{engine}") ?? 0;
  const told = {
    "output tokens/s": number(near && near.rate("generation_tokens_total")),
    running: number(samples.get("num_requests_running")),
    waiting: number(samples.get("num_requests_waiting")),
    "KV in use": percent(samples.get("kv_cache_usage_ratio")),
    "mean exit layer": number(depth),
    "engine memory": bytes ? `${number(bytes / 2 ** 20)} MiB` : "–",
    "engine restarts": number(samples.get("engine_restarts_total")),
  };
  $("tiles").replaceChildren(
    ...Object.entries(told).map(([name, value]) =>
      el("div", { className: "card tile" }, el("dt", { textContent: name }), el("dd", { textContent: value })),
    ),
  );
}

function say(state, words) {
  $("state").dataset.state = state;
  $("state").textContent = words;
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (document.hidden) say("wait", "paused while the page is hidden");
  else scrape();
});
$("key").addEventListener("change", () => {
  api.key = $("key").value.trim();
  scrape();
});
$("period").addEventListener("change", scrape);
$("span").addEventListener("change", () => history.latest && draw());
scrape();
