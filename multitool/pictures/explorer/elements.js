/* What all views write with: elements of the page, and probabilities as a person reads them. */

function make(tag, attributes = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") for (const [key, v] of Object.entries(value)) element.style.setProperty(key, v);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...inside);
  return element;
}

function percent(p) {
  if (!(p > 0)) return "0%";
  if (p >= 0.0995) return `${Math.round(100 * p)}%`;
  return p < 1e-6 ? "<0.0001%" : `${Number((100 * p).toPrecision(2))}%`;
}

const counted = (n) => n.toLocaleString("en");

const clamped = (value, low, high) => Math.max(low, Math.min(value, high));
