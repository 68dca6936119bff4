// Building elements without a template language: text is always text, never markup.

import { mark } from "./marks.js";

/** An element: `h("button", { class: "button", onclick }, "Send")`. Properties that start with `on` listen. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "selected") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter(child => child != null && child !== false));
  return element;
}

export const $ = id => document.getElementById(id);

/** Set text only if it differs: an untouched node costs no layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (value == null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** A button with a picture and words; without words, `label` names it for readers. */
export function button(picture, text, properties = {}) {
  const { class: more = "", label, ...rest } = properties;
  const named = label ? { "aria-label": label, title: label } : {};
  return h("button", { type: "button", class: `button ${more}`, ...named, ...rest }, picture && mark(picture), text);
}
