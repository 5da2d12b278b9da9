// What the dashboard shows: each chart's series, and how their values follow from two scrapes.

import { layerName, number, percent, seconds } from "./dom.js";

/** Seconds that shares and quantiles look back: requests end now and then, and a share needs some of them. */
export const LOOK_BACK = 15;
/** Seconds that rates look back: long enough to be calm. */
export const CALM = 3;

const LAYERS = ["layers_run_total", "layers_filled_total", "layers_skipped_total"];
const PARTS = ["encoder", "layers", "checks", "fill", "top", "other"];
const timeOf = (part) => `time_seconds_total{${part}}`;
const TIME = PARTS.map(timeOf);

/** A gauge as it is, in the later of two scrapes. */
const gauge = (key) => ({ near }) => near.to.samples.get(key) ?? null;
const rate = (key) => ({ near }) => near.rate(key);
const share = (part, whole) => ({ far }) => far.share(part, whole);
const quantile = (name, q) => ({ far }) => far.quantile(name, q);

/**
 * The charts there are for a scrape. `stacked` series fill the chart up to `most`; a series' `value` is called with
 * `near` and `far`, windows of `CALM` and of `LOOK_BACK` seconds. `depth` is a share of the model's depth, for colours;
 * `hue` says which series have one colour, and a `bound` of a value is dashed.
 */
export function charts(samples) {
  const parts = samples.get(timeOf("encoder")) ? PARTS : PARTS.filter((part) => part !== "encoder");
  return [
    {
      id: "tokens",
      title: "Tokens a second",
      format: number,
      series: [
        { name: "output", value: rate("generation_tokens_total") },
        { name: "prompt", value: rate("prompt_tokens_total") },
      ],
    },
    {
      id: "requests",
      title: "Outputs in the engine",
      format: number,
      whole: true,
      series: [
        { name: "running", value: gauge("num_requests_running") },
        { name: "waiting", value: gauge("num_requests_waiting") },
      ],
    },
    {
      id: "kv",
      title: "KV cache",
      format: percent,
      most: 1,
      series: [
        { name: "in use", value: gauge("kv_cache_usage_ratio") },
        { name: "prefix hits", value: share("prefix_cache_hits_total", ["prefix_cache_queries_total"]) },
      ],
    },
    { id: "depth", title: "Where tokens left", format: percent, most: 1, stacked: true, series: depths(samples) },
    {
      id: "time",
      title: "What time is spent on",
      format: percent,
      most: 1,
      stacked: true,
      series: parts.map((name) => ({ name, value: share(timeOf(name), TIME) })),
    },
    {
      id: "saving",
      title: "What exits save",
      format: percent,
      most: 1,
      series: [
        { name: "layers skipped", value: share(LAYERS[2], LAYERS) },
        { name: "layers filled, K and V only", value: share(LAYERS[1], LAYERS) },
        { name: "drafts accepted", value: share("drafts_accepted_total", ["drafts_proposed_total"]) },
      ],
    },
    {
      id: "first",
      title: "Time to first token",
      format: seconds,
      series: latencies("time_to_first_token_seconds"),
    },
    { id: "between", title: "Time between tokens", format: seconds, series: latencies("inter_token_latency_seconds") },
    ...risks(samples),
  ];
}

function latencies(name) {
  return [
    { name: "median", value: quantile(name, 0.5) },
    { name: "95%", value: quantile(name, 0.95) },
  ];
}

/** A series for each exit layer and the top: the finite bounds of the depth histogram. */
function depths(samples) {
  const bounds = [...samples.keys()]
    .map((key) => /^exit_depth_bucket\{([\d.]+)\}$/.exec(key)?.[1])
    .filter(Boolean)
    .map(Number)
    .sort((a, b) => a - b);
  const top = bounds.at(-1);
  return bounds.map((layer) => ({
    name: layerName(layer, top),
    depth: layer / top,
    value: ({ far }) => {
      const buckets = far.buckets("exit_depth");
      const all = buckets.reduce((sum, [, count]) => sum + count, 0);
      return all > 0 ? (buckets.find(([bound]) => bound === layer)?.[1] ?? 0) / all : null;
    },
  }));
}

/** The risk that shadow samples measure, where the server takes any: the estimate and its interval for each loss. */
function risks(samples) {
  const parts = {
    measured: "shadow_risk_ratio",
    "at least": "shadow_risk_low_ratio",
    "at most": "shadow_risk_high_ratio",
  };
  const dials = [...samples.keys()].map((key) => /^shadow_risk_ratio\{(.*)\}$/.exec(key)?.[1]).filter(Boolean).sort();
  if (!dials.length) return [];
  const series = dials.flatMap((dial, hue) =>
    Object.entries(parts).map(([words, name]) => ({
      name: `${dial}: ${words}`,
      value: gauge(`${name}{${dial}}`),
      hue,
      bound: words !== "measured",
    })),
  );
  return [{ id: "risk", title: "Measured risk of shadow samples", format: percent, series }];
}

/** A chart's point for the last scrape, `{t, values}`; null if it was the first. */
export function point(series, history) {
  const windows = { near: history.window(CALM), far: history.window(LOOK_BACK) };
  return windows.near && { t: history.latest.t, values: series.map(({ value }) => value(windows)) };
}
