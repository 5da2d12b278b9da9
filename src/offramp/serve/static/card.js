// One output with its figures: a card. A race shows two.

import { Aligner } from "./align.js";
import { el, layerName, number, percent, seconds, setDepth } from "./dom.js";
import { Run } from "./run.js";
import { TokenText } from "./tokens.js";
import { readChunk } from "./wire.js";

const ENDED = { stop: "finished", length: "reached max tokens" };

export class Card {
  #drawing = 0;

  /** @param drafts whether tokens that leave early are drafts; @param tell as `TokenText` has it. */
  constructor(title, { numLayers, drafts, tell }) {
    this.drafts = drafts;
    this.aligner = new Aligner();
    this.tokens = new TokenText(numLayers, tell);
    this.run = new Run(numLayers);
    this.state = el("span", { className: "quiet state", textContent: "waiting" });
    this.figures = {
      rate: figure("tokens/s"),
      first: figure("to first token"),
      layer: figure(`mean layer of ${numLayers}`),
      saved: figure(drafts ? "from drafts" : "layers saved"),
    };
    this.histogram = el("tbody");
    this.account = el("p", { className: "quiet account" });
    this.element = el(
      "article",
      { className: "card output" },
      el("header", {}, el("h2", { textContent: title }), this.state),
      el("dl", {}, ...Object.values(this.figures).map(({ element }) => element)),
      this.tokens.element,
      el("table", { className: "depths" }, el("caption", { textContent: "Where tokens left" }), this.histogram),
      this.account,
    );
    this.element.setAttribute("aria-label", title);
    this.#draw();
  }

  /** Show chunks as they come, to the end. Whatever a stream throws goes on to the caller. */
  async show(chunks) {
    this.run = new Run(this.run.numLayers);
    this.#say("reading the prompt", true);
    try {
      for await (const chunk of chunks) {
        const read = readChunk(chunk);
        this.run.take(read);
        this.tokens.add(this.aligner.push(read.text, read.tokens));
        if (this.run.count) this.#say("running", true);
        this.#drawing ||= requestAnimationFrame(() => this.#draw());
      }
      this.#say(ENDED[this.run.finish] ?? this.run.finish ?? "finished", false);
    } catch (error) {
      this.#say(error.name === "AbortError" ? "stopped" : "failed", false);
      throw error;
    } finally {
      this.tokens.add(this.aligner.flush());
      cancelAnimationFrame(this.#drawing);
      this.#draw();
    }
  }

  #say(words, busy) {
    this.state.textContent = words;
    this.element.classList.toggle("busy", busy);
    this.tokens.element.setAttribute("aria-busy", String(busy));
  }

  #draw() {
    this.#drawing = 0;
    const { run, figures } = this;
    figures.rate.value.textContent = number(run.rate);
    figures.first.value.textContent = seconds(run.firstToken);
    figures.layer.value.textContent = number(run.meanLayer);
    figures.saved.value.textContent = percent(this.drafts ? run.early : run.saved);
    this.histogram.replaceChildren(...run.histogram.map((row) => depthRow(row, run.numLayers)));
    this.account.textContent = accountOf(run);
  }
}

function figure(name) {
  const value = el("dd", { textContent: "–" });
  return { value, element: el("div", {}, el("dt", { textContent: name }), value) };
}

function depthRow({ layer, count, share }, numLayers) {
  const bar = el("span", { className: "bar" });
  bar.style.width = `${share * 100}%`;
  setDepth(bar, layer, numLayers);
  return el(
    "tr",
    {},
    el("th", { scope: "row", textContent: layerName(layer, numLayers) }),
    el("td", { className: "track" }, bar),
    el("td", { textContent: `${percent(share)} · ${count}` }),
  );
}

/** The account of layers that comes with the end of an output, in words. */
function accountOf({ exit, account }) {
  if (!exit) return "";
  const all = account.run + account.filled + account.skipped;
  const said = all
    ? [`Layers: ${percent(account.run / all)} run, ${percent(account.filled / all)} filled (K and V only), ` +
        `${percent(account.skipped / all)} skipped.`]
    : [];
  if (exit.drafts_proposed) said.push(`Drafts: ${exit.drafts_accepted} of ${exit.drafts_proposed} accepted.`);
  if (exit.switched_off) said.push("The server switched exits off: at this load they would not pay.");
  return said.join(" ");
}
