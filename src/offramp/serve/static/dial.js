// The dial: its positions, what each promises, and how a request says it.

import { layerName, number, percent } from "./dom.js";

/** The positions there are, from careful to bold: off, lossless, then the risks that are allowed, loss by loss. */
export function positions(engine, maxRisk = null) {
  if (!engine.exit_layers.length) return ["off"];
  const risks = Object.entries(engine.risks ?? {})
    .filter(([, kv]) => kv !== "verify") // Drafts that are checked risk nothing: that is `lossless`.
    .map(([name]) => ({ name, ...readRisk(name) }))
    .filter(({ risk }) => maxRisk === null || risk <= maxRisk)
    .sort((a, b) => a.loss.localeCompare(b.loss) || a.risk - b.risk);
  return ["off", "lossless", ...risks.map(({ name }) => name)];
}

/** Where the dial stands first: at the server's default, and if that is off, at what can be had without a risk. */
export function start(there, standard) {
  const name = typeof standard === "object" ? String(standard?.risk) : standard;
  if (name !== "off" && there.includes(name)) return name;
  return there.includes("lossless") ? "lossless" : "off";
}

/** The loss and the number of a risk: `0.02` speaks of tokens, `task:0.02` of answers. */
export function readRisk(name) {
  const [, loss = "", risk] = /^(?:(.*):)?(.*)$/.exec(name);
  return { loss, risk: Number(risk) };
}

/** The `exit` field of a request at a position, with the trace that the page draws. */
export function exitField(position) {
  if (position === "off" || position === "lossless") return { mode: position, trace: true };
  const { loss, risk } = readRisk(position);
  return { risk: loss ? position : risk, trace: true };
}

/** A short name for a position. */
export function label(position) {
  if (position === "off") return "Full depth";
  if (position === "lossless") return "Lossless";
  const { loss, risk } = readRisk(position);
  return `${loss ? `${loss}: ` : ""}${percent(risk)} risk`;
}

/** The shortest name, under the slider. */
export function mark(position) {
  if (position === "off" || position === "lossless") return position;
  const { loss, risk } = readRisk(position);
  return `${loss ? `${loss} ` : ""}${percent(risk)}`;
}

/** What a position promises, in words. */
export function promise(position, engine) {
  if (position === "off") {
    const every = `All ${engine.num_layers} layers run for every token.`;
    return engine.exit_layers.length ? every : `${every} The server runs without exits.`;
  }
  if (position === "lossless") {
    return "Tokens chosen at exits are drafts, which the top checks. The output is that of full depth.";
  }
  const { loss, risk } = readRisk(position);
  const share = percent(risk);
  if (!loss) {
    return `Of the tokens generated for a prompt, ${share} or fewer are expected to differ from what full depth ` +
      "would choose after the same text.";
  }
  if (loss === "task") return `Of the prompts, ${share} or fewer are expected to lose a right answer.`;
  if (loss === "text") return `The text is expected to differ from full depth's by ${share} or less (1 − ROUGE-L).`;
  if (loss === "reference") return `Likeness to the right text (ROUGE-L) is expected to fall by ${share} or less.`;
  return `The calibrated loss “${loss}” is expected to be ${share} or less.`;
}

/** The exit parameters that a position means, in a line; empty where the server does not tell. */
export function settings(params) {
  if (!params) return "";
  const { kv, max_draft: drafts } = params;
  return `${where(params)}, KV by ${kv}${kv === "verify" ? `, ${drafts} drafts at most` : ""}`;
}

/** The criterion and its thresholds, in a few words. */
export function where({ criterion, threshold, options }) {
  if (criterion === "fixed") return `fixed at ${layerName(options.layer)}`;
  const at = typeof threshold === "object"
    ? Object.entries(threshold).map(([layer, value]) => `${number(value)} at ${layerName(Number(layer))}`).join(", ")
    : number(threshold);
  return `${criterion} ≥ ${at}`;
}

/** Whether tokens that leave early are drafts, so that every layer runs for them all the same. */
export function verifies(exit, engine) {
  if (exit.mode) return exit.mode === "lossless";
  return exit.kv === "verify" || (exit.risk !== undefined && engine.risks?.[String(exit.risk)] === "verify");
}
