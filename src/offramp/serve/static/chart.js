// Charts over time, in SVG: lines, or areas on top of each other. No library.

import { el, svg } from "./dom.js";

const HEIGHT = 170;
const LEFT = 48;
const BOTTOM = 20;
const TOP = 8;

export class Chart {
  #all = [];
  #points = []; // Those that are shown.
  #cursor = null; // The index of the point that is asked about; null: the last.
  #width = 400;

  /** @param spec as `charts` has it. */
  constructor(spec) {
    this.spec = spec;
    this.values = spec.series.map(() => el("td"));
    this.when = el("span", { className: "quiet when" });
    this.plot = svg("svg", { class: "plot", height: HEIGHT, tabindex: 0, role: "img" });
    this.element = el(
      "figure",
      { className: "card chart", id: `chart-${spec.id}` },
      el("figcaption", {}, el("h2", { textContent: spec.title }), this.when),
      el("table", { className: "key" }, el("tbody", {}, ...spec.series.map((one, i) => this.#row(one, i)))),
    );
    this.element.insertBefore(this.plot, this.element.lastChild);
    this.plot.addEventListener("pointermove", ({ offsetX }) => this.#ask(this.#nearest(offsetX)));
    this.plot.addEventListener("pointerleave", () => this.#ask(null));
    this.plot.addEventListener("blur", () => this.#ask(null));
    this.plot.addEventListener("keydown", (event) => this.#walk(event));
    new ResizeObserver(([{ contentRect }]) => {
      this.#width = Math.max(160, Math.floor(contentRect.width));
      this.#draw();
    }).observe(this.plot.parentElement);
  }

  /** Take in a point, `{t, values}`, and forget those before time `oldest`. */
  add(point, oldest) {
    this.#all.push(point);
    while (this.#all[0].t < oldest) this.#all.shift();
  }

  /** Show the points from time `from` to `to`; a line breaks where two are further apart than `gap` seconds. */
  show({ from, to, gap }) {
    const asked = this.#points[this.#cursor];
    this.#points = this.#all.filter(({ t }) => t >= from);
    this.#cursor = asked && this.#points.includes(asked) ? this.#points.indexOf(asked) : null;
    this.range = { from, to, gap };
    this.#draw();
  }

  #row(one, i) {
    const swatch = svg("svg", { class: "swatch", viewBox: "0 0 10 10" }, svg("rect", { width: 10, height: 10, rx: 2 }));
    this.#colour(swatch, one, i);
    return el("tr", {}, el("th", { scope: "row" }, swatch, one.name), this.values[i]);
  }

  #colour(mark, { depth, hue, bound = false }, i) {
    mark.classList.toggle("bound", bound);
    if (depth === undefined) return mark.classList.add(`series-${(hue ?? i) % 5}`);
    mark.classList.add("bar");
    mark.classList.toggle("top", depth >= 1);
    mark.style.setProperty("--depth", depth);
  }

  /** The values of a point as heights: for stacked series, sums. */
  #heights({ values }) {
    if (!this.spec.stacked) return values;
    let sum = 0;
    return values.map((value) => (value === null ? null : (sum += value)));
  }

  #draw() {
    if (!this.range) return;
    const { spec } = this;
    const heights = this.#points.map((point) => this.#heights(point));
    const highest = Math.max(0, ...heights.flat().filter((value) => value !== null));
    const most = spec.most ?? niceTop(highest, spec.whole);
    const y = (value) => TOP + (1 - value / most) * (HEIGHT - TOP - BOTTOM);
    const marks = [0, 0.5, 1].map((part) => part * most).map((value) => this.#gridLine(y(value), value));
    const drawn = spec.series.map((_, i) => this.#series(heights, i, y));
    if (spec.stacked) drawn.reverse(); // The lowest lies in front.
    this.plot.replaceChildren(...marks, ...this.#timeMarks(), ...drawn.flat(), ...this.#cursorLine());
    this.plot.setAttribute("width", this.#width);
    this.#tell();
  }

  #x(t) {
    const { from, to } = this.range;
    return LEFT + ((t - from) / (to - from)) * (this.#width - LEFT - 6);
  }

  #gridLine(y, value) {
    return svg(
      "g",
      { class: "grid" },
      svg("line", { x1: LEFT, x2: this.#width - 6, y1: y, y2: y }),
      svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, this.spec.format(value)),
    );
  }

  #timeMarks() {
    const { from, to } = this.range;
    return [from, (from + to) / 2, to].map((t, i) => {
      const anchor = ["start", "middle", "end"][i];
      return svg("text", { class: "time", x: this.#x(t), y: HEIGHT - 4, "text-anchor": anchor }, ago(to - t));
    });
  }

  /** The stretches of a series without a gap, each a path. */
  #series(heights, i, y) {
    return this.#stretches(heights, i).map((stretch) => {
      const line = stretch.map((n) => `${this.#x(this.#points[n].t).toFixed(1)},${y(heights[n][i]).toFixed(1)}`);
      const ends = [stretch[0], stretch.at(-1)].map((n) => this.#x(this.#points[n].t).toFixed(1));
      const area = `M${ends[0]},${y(0)}L${line.join("L")}L${ends[1]},${y(0)}Z`;
      // A point alone is a line of no length, which would not be drawn.
      const look = this.spec.stacked ? { class: "area", d: area } : { class: "line", d: `M${line.join("L")}h.01` };
      const path = svg("path", look);
      this.#colour(path, this.spec.series[i], i);
      return path;
    });
  }

  #stretches(heights, i) {
    const found = [];
    let last = -2;
    this.#points.forEach(({ t }, n) => {
      if (heights[n][i] === null) return;
      const joined = last === n - 1 && t - this.#points[last].t <= this.range.gap;
      if (joined) found.at(-1).push(n);
      else found.push([n]);
      last = n;
    });
    return found;
  }

  #cursorLine() {
    if (this.#cursor === null) return [];
    const x = this.#x(this.#points[this.#cursor].t);
    return [svg("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM })];
  }

  /** Write the values beside the names: those asked about, or the last. */
  #tell() {
    const point = this.#points[this.#cursor ?? this.#points.length - 1];
    const said = this.spec.series.map((_, i) => this.spec.format(point ? point.values[i] : null));
    said.forEach((words, i) => {
      this.values[i].textContent = words;
    });
    this.when.textContent = point && this.#cursor !== null ? ago(this.range.to - point.t) : "";
    const list = this.spec.series.map(({ name }, i) => `${name} ${said[i]}`).join(", ");
    this.plot.setAttribute("aria-label", `${this.spec.title}, ${this.when.textContent || "now"}: ${list}`);
  }

  #ask(index) {
    this.#cursor = index;
    this.#draw();
  }

  #nearest(x) {
    if (!this.#points.length) return null;
    const far = ({ t }) => Math.abs(this.#x(t) - x);
    return this.#points.reduce((best, point, n) => (far(point) < far(this.#points[best]) ? n : best), 0);
  }

  #walk(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !this.#points.length) return;
    event.preventDefault();
    const at = this.#cursor ?? this.#points.length - 1;
    this.#ask(Math.min(Math.max(at + step, 0), this.#points.length - 1));
  }
}

/** A round number at or above the highest value. */
export function niceTop(highest, whole = false) {
  if (!(highest > 0)) return whole ? 2 : 1;
  const power = 10 ** Math.floor(Math.log10(highest));
  // Half of it is a mark, too: of things that are whole, it must be even.
  const top = (whole ? [1, 2, 4, 6, 10] : [1, 2, 5, 10]).find((step) => step * power >= highest) * power;
  return whole ? Math.max(2, top) : top;
}

function ago(seconds) {
  if (seconds < 0.5) return "now";
  return seconds < 90 ? `${Math.round(seconds)} s ago` : `${Math.round(seconds / 6) / 10} min ago`;
}
