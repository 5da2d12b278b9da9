// One generation: what has come of it so far, counted. No page, no network.

export class Run {
  #start;
  #first = null;
  #last = null;

  /** @param numLayers the model's depth; @param now a clock in seconds. */
  constructor(numLayers, now = () => performance.now() / 1000) {
    this.numLayers = numLayers;
    this.now = now;
    this.ids = [];
    this.layers = [];
    this.text = "";
    this.exit = null;
    this.finish = null;
    this.#start = now();
  }

  /** Count what a chunk says (`readChunk`). */
  take({ text, tokens, finish, exit }) {
    this.text += text;
    if (tokens.length) {
      this.#last = this.now();
      if (this.#first === null) this.#first = { at: this.#last, tokens: tokens.length };
      this.ids.push(...tokens.map(({ id }) => id));
      this.layers.push(...tokens.map(({ layer }) => layer));
    }
    this.finish = finish ?? this.finish;
    this.exit = exit ?? this.exit;
  }

  get count() {
    return this.layers.length;
  }

  /** Seconds to the first token; null before it. */
  get firstToken() {
    return this.#first && this.#first.at - this.#start;
  }

  /** Tokens a second after the first ones; null while there is nothing to divide. */
  get rate() {
    const passed = this.#first ? this.#last - this.#first.at : 0;
    return passed > 0 ? (this.count - this.#first.tokens) / passed : null;
  }

  get meanLayer() {
    return this.count ? this.layers.reduce((sum, layer) => sum + layer, 0) / this.count : null;
  }

  /** Share of tokens that left below the top. */
  get early() {
    return this.count ? this.layers.filter((layer) => layer < this.numLayers).length / this.count : null;
  }

  /** Share of layers that were not run: by the account of layers where it is there, else by where tokens left. */
  get saved() {
    const { run, filled, skipped } = this.account ?? {};
    const all = run + filled + skipped;
    if (all > 0) return (filled + skipped) / all;
    return this.count ? 1 - this.meanLayer / this.numLayers : null;
  }

  /** Layers by what became of them, once the output has ended; else null. */
  get account() {
    const told = this.exit;
    if (!told) return null;
    return { run: sum(told.layers_run), filled: sum(told.layers_filled), skipped: sum(told.layers_skipped) };
  }

  /** `{layer, count, share}` from the shallowest exit that was used to the deepest. */
  get histogram() {
    const counts = new Map();
    for (const layer of this.layers) counts.set(layer, (counts.get(layer) ?? 0) + 1);
    return [...counts]
      .sort(([a], [b]) => a - b)
      .map(([layer, count]) => ({ layer, count, share: count / this.count }));
  }
}

/** The place of the first token in which two runs differ; null if they are equal. */
export function firstDifference(a, b) {
  const length = Math.max(a.ids.length, b.ids.length);
  for (let i = 0; i < length; i += 1) if (a.ids[i] !== b.ids[i]) return i;
  return null;
}

/** What a race came to, in sentences: `full` ran all layers, `dial` had its exits. */
export function verdict(full, dial) {
  const said = [];
  if (full.rate && dial.rate) {
    const ratio = dial.rate / full.rate;
    said.push(`The dial ran at ${ratio.toFixed(2)} times the speed of full depth.`);
  }
  const at = firstDifference(full, dial);
  said.push(at === null ? `Both outputs are equal, all ${full.count} tokens.` : `They differ from token ${at + 1} on.`);
  return said.join(" ");
}

function sum(layers) {
  return Array.isArray(layers) ? layers.reduce((total, one) => total + one, 0) : (layers ?? 0);
}
