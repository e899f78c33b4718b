// Making elements. Text goes in as text, never as markup, so whatever a catalogue holds cannot become code.

const SVG = "http://www.w3.org/2000/svg";

const present = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...present(children));
  return node;
}

/** An HTML element: `el("p", {class: "hint"}, "text", child)`. */
export const el = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);

/** The same for SVG. */
export const svg = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

/** Put these in place of whatever `node` holds; nulls are left out. */
export const refill = (node, ...children) => node.replaceChildren(...present(children));

export const byId = (id) => document.getElementById(id);

/** Set the text only where it differs: screen readers and the layout are left alone otherwise. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Words for screen readers only. */
export const unseen = (text) => el("span", { class: "sr" }, text);

export const wantsCalm = matchMedia("(prefers-reduced-motion: reduce)");
