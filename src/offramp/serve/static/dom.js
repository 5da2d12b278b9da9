// Building pages. Text goes in as text nodes only: nothing that a model or a server says is ever read as HTML.

/** The element with an id; a missing one is a bug. */
export function $(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return found;
}

/** A new element. Properties that elements have are set as such, others (`aria-label`, `data-x`) as attributes. */
export function el(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** A new SVG element. */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function fill(made, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Colour an element by the layer at which a token left. */
export function setDepth(element, layer, numLayers) {
  element.style.setProperty("--depth", String(numLayers ? layer / numLayers : 0));
  element.classList.toggle("top", layer >= numLayers);
}

/** What a layer is called where a token left. */
export function layerName(layer, numLayers = Infinity) {
  if (layer >= numLayers) return `top (${numLayers})`;
  return layer ? `layer ${layer}` : "embedding";
}

const compact = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, useGrouping: false });

/** A number to three figures; larger ones whole. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return Math.abs(value) >= 1000 ? String(Math.round(value)) : compact.format(value);
}

/** A share of 1 as a percentage. 0% and 100% are said of nothing and of all alone. */
export function percent(share) {
  if (share === null || share === undefined || Number.isNaN(share)) return "–";
  if (share > 0 && share < 0.0005) return "<0.1%";
  if (share >= 0.995 && share < 1) return ">99%";
  return `${number(share >= 0.1 ? Math.round(share * 100) : Math.round(share * 1000) / 10)}%`;
}

/** Seconds, as milliseconds where they are few. */
export function seconds(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return value < 1 ? `${number(value * 1000)} ms` : `${number(value)} s`;
}
