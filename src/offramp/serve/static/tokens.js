// An output on the page: a tinted piece of text for each token. Hovering or walking with arrow keys tells about one.

import { el, layerName, number, percent, setDepth } from "./dom.js";

export class TokenText {
  #pieces = [];
  #current = -1;
  #count = 0;

  /** @param tell called with what is known about a token, as a sentence. */
  constructor(numLayers, tell) {
    this.numLayers = numLayers;
    this.tell = tell;
    this.element = el("div", {
      className: "tokens",
      tabIndex: 0,
      role: "group",
      "aria-label": "Output. Arrow keys walk through its tokens.",
    });
    this.element.addEventListener("mouseover", ({ target }) => {
      this.#show(this.#pieces.findIndex(({ span }) => span.contains(target)));
    });
    this.element.addEventListener("keydown", (event) => this.#walk(event));
    this.element.addEventListener("focus", () => this.#current < 0 && this.#show(0));
    this.element.addEventListener("blur", () => this.#show(-1));
  }

  /** Add pieces as `Aligner` settles them. */
  add(settled) {
    for (const { text, tokens } of settled) {
      const last = tokens.at(-1);
      const span = el("span", { className: "token tint" });
      // A token without text, such as the one that ends an output, is a mark that can be asked about.
      const [, space, word] = /^(\s*)(.*)$/s.exec(text || "◦");
      // The layer is written under the word: the space before it may lie at the end of the line above.
      span.append(space, el("span", { className: "word", textContent: word }));
      if (last && last.layer < this.numLayers) span.lastChild.dataset.layer = last.layer;
      span.classList.toggle("mute", !text);
      setDepth(span, last ? last.layer : this.numLayers, this.numLayers);
      if (last) span.dataset.layer = last.layer;
      this.#pieces.push({ span, text, tokens, first: this.#count + 1 });
      this.#count += tokens.length;
      this.element.append(span);
    }
  }

  #walk(event) {
    const to = { ArrowRight: this.#current + 1, ArrowLeft: this.#current - 1, Home: 0, End: this.#pieces.length - 1 };
    if (!(event.key in to) || !this.#pieces.length) return;
    event.preventDefault();
    this.#show(Math.min(Math.max(to[event.key], 0), this.#pieces.length - 1));
  }

  #show(index) {
    this.#pieces[this.#current]?.span.classList.remove("current");
    this.#current = index;
    const piece = this.#pieces[index];
    if (!piece) return;
    piece.span.classList.add("current");
    this.tell(describe(piece, this.numLayers));
  }
}

/** What is known about a piece of text. */
export function describe({ text, tokens, first }, numLayers) {
  const last = tokens.at(-1);
  if (!last) return `“${text}”: the server did not say where it left.`;
  const which = tokens.length > 1 ? `Tokens ${first}–${first + tokens.length - 1}` : `Token ${first}`;
  const where = last.layer >= numLayers ? `all ${numLayers} layers` : `left at ${place(last.layer, numLayers)}`;
  const facts = [`${which} “${visible(text || last.token)}”: ${where}`];
  if (last.confidence !== null && last.confidence !== undefined) facts.push(`confidence ${number(last.confidence)}`);
  if (typeof last.logprob === "number") facts.push(`probability ${percent(Math.exp(last.logprob))}`);
  if (last.runnerUp) {
    facts.push(`runner-up “${visible(last.runnerUp.token)}” (${percent(Math.exp(last.runnerUp.logprob))})`);
  }
  return `${facts.join(" · ")}.`;
}

function place(layer, numLayers) {
  return layer ? `${layerName(layer, numLayers)} of ${numLayers}` : `the ${layerName(layer, numLayers)}`;
}

function visible(text) {
  return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}
