// What was scraped, and differences between scrapes. A counter that fell began anew at zero: its total goes on.

const COUNTS = /_(total|count|sum|bucket)(\{.*\})?$/;

export class History {
  #last = new Map();
  #totals = new Map();
  entries = [];

  /** @param keepSeconds how far back windows reach. */
  constructor(keepSeconds) {
    this.keepSeconds = keepSeconds;
  }

  /** Take in the samples (`parse`) of a scrape at time `t`, in seconds. */
  add(t, samples) {
    const first = !this.entries.length;
    for (const [key, now] of samples) {
      if (!COUNTS.test(key)) continue;
      const before = this.#last.get(key) ?? (first ? now : 0);
      this.#totals.set(key, (this.#totals.get(key) ?? 0) + (now < before ? now : now - before));
      this.#last.set(key, now);
    }
    this.entries.push({ t, samples, totals: new Map(this.#totals) });
    const oldest = t - this.keepSeconds;
    while (this.entries.length > 2 && this.entries[1].t < oldest) this.entries.shift();
  }

  get latest() {
    return this.entries.at(-1);
  }

  /** From the last entry at least `seconds` old, or the first, to the latest; null if there is one only. */
  window(seconds) {
    const earlier = this.entries.slice(0, -1);
    if (!earlier.length) return null;
    const from = earlier.findLast(({ t }) => t <= this.latest.t - seconds) ?? earlier[0];
    return new Window(from, this.latest);
  }
}

/** Two scrapes and what lies between. */
export class Window {
  constructor(from, to) {
    this.from = from;
    this.to = to;
    this.seconds = to.t - from.t;
  }

  /** By how much a counter has grown. */
  growth(key) {
    return (this.to.totals.get(key) ?? 0) - (this.from.totals.get(key) ?? 0);
  }

  /** A counter's growth in a second. */
  rate(key) {
    return this.growth(key) / this.seconds;
  }

  /** The share of `part` in the growth of `whole`, a list of counters; null where nothing happened. */
  share(part, whole) {
    const all = whole.reduce((sum, key) => sum + this.growth(key), 0);
    return all > 0 ? this.growth(part) / all : null;
  }

  /** A histogram's buckets, `[bound, count]` in order, each count without those of the buckets below. */
  buckets(name) {
    const bounds = [...this.to.samples.keys()] // Totals have those of earlier engines, too.
      .map((key) => key.startsWith(`${name}_bucket{`) && key.slice(name.length + 8, -1))
      .filter(Boolean)
      .map((text) => [text === "+Inf" ? Infinity : Number(text), this.growth(`${name}_bucket{${text}}`)])
      .sort(([a], [b]) => a - b);
    return bounds.map(([bound, count], i) => [bound, count - (i ? bounds[i - 1][1] : 0)]);
  }

  /** A quantile of a histogram, in proportion within its bucket; null without values. */
  quantile(name, q) {
    const buckets = this.buckets(name);
    const all = buckets.reduce((sum, [, count]) => sum + count, 0);
    if (!(all > 0)) return null;
    let below = 0;
    let lower = 0;
    for (const [bound, count] of buckets) {
      if (below + count >= q * all && count > 0) {
        return bound === Infinity ? lower : lower + ((bound - lower) * (q * all - below)) / count;
      }
      below += count;
      lower = bound;
    }
    return lower;
  }
}
