// Prometheus's text format, as far as `/metrics` uses it.

const LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+([-+]?(?:[\d.]+(?:e[-+]?\d+)?|Inf)|NaN)(?:\s+-?\d+)?\s*$/i;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"\s*,?\s*/gy;
const ESCAPED = { "\\n": "\n", '\\"': '"', "\\\\": "\\" };

/**
 * Samples of a page: name and label -> number, as in `time_seconds_total{layers}`: the name without `offramp_`, and the
 * value of the label besides `model_name`. What differs in `model_name` alone is summed.
 */
export function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const [, name, labels = "", value] = LINE.exec(line) ?? [];
    if (!name) continue; // A comment, an empty line.
    const key = keyOf(name.replace(/^offramp_/, ""), readLabels(labels));
    samples.set(key, (samples.get(key) ?? 0) + readNumber(value));
  }
  return samples;
}

function keyOf(name, labels) {
  const values = Object.entries(labels).filter(([label]) => label !== "model_name").map(([, value]) => value);
  return values.length ? `${name}{${values.join(",")}}` : name;
}

function readLabels(text) {
  const found = [...text.matchAll(LABEL)];
  return Object.fromEntries(found.map(([, name, value]) => [name, value.replace(/\\[n"\\]/g, (two) => ESCAPED[two])]));
}

function readNumber(text) {
  return { "+Inf": Infinity, "-Inf": -Infinity }[text] ?? Number(text);
}
