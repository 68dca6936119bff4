// The shapes of statuses and the small pictures of buttons, each one path in a 16 by 16 box: for the page and for the tile map.

export const LABELS = [
  "offline", "away", "reconnecting", "active", "paused", "not_joined", "submitted", "timed_out", "terminated",
];

export const SHAPES = {
  active: "M8 2.8a5.2 5.2 0 1 0 0 10.4A5.2 5.2 0 0 0 8 2.8z",
  away: "M8 1.8 15 14H1z",
  reconnecting: "M2.6 6.2a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6zm5.4 0a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6zm5.4 0a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6z",
  offline: "M4.1 2.3 8 6.2l3.9-3.9 1.8 1.8L9.8 8l3.9 3.9-1.8 1.8L8 9.8l-3.9 3.9-1.8-1.8L6.2 8 2.3 4.1z",
  paused: "M3.6 2.6h3.2v10.8H3.6zM9.2 2.6h3.2v10.8H9.2z",
  submitted: "M1.9 8.5 3.9 6.5l2.7 2.7 5.6-5.9 2 1.9-7.6 8z",
  not_joined: "M8 2.4a5.6 5.6 0 1 0 0 11.2A5.6 5.6 0 0 0 8 2.4zm0 1.7a3.9 3.9 0 1 1 0 7.8 3.9 3.9 0 0 1 0-7.8z",
  timed_out: "M3 1.8h10v1.4L9.2 8l3.8 4.8v1.4H3v-1.4L6.8 8 3 3.2z",
  terminated: "M5 1.8h6L14.2 5v6L11 14.2H5L1.8 11V5z",
};

const PICTURES = {
  hand: "M7.2 1.2c.6 0 1 .4 1 1v4h.6V1.9a.9.9 0 1 1 1.8 0v4.6h.6V3a.9.9 0 1 1 1.8 0v6.6c0 3.2-1.8 5.2-4.7 5.2-2 0-3.1-.8-4.2-2.7L1.7 8.2c-.3-.6-.2-1.1.3-1.4.5-.3 1-.2 1.4.3l1.4 1.8h.3V2.9a.9.9 0 1 1 1.8 0v3.3h.3v-4c0-.6.4-1 0-1z",
  message: "M2.5 2.5h11c.6 0 1 .4 1 1v7c0 .6-.4 1-1 1H8l-3.6 2.8v-2.8H2.5c-.6 0-1-.4-1-1v-7c0-.6.4-1 1-1z",
  warn: "M8 1.5 15.2 14H.8zM7.2 6v4.2h1.6V6zm0 5.2v1.5h1.6v-1.5z",
  pause: SHAPES.paused,
  resume: "M4 2.4 13.2 8 4 13.6z",
  clock: "M8 1.4a6.6 6.6 0 1 0 0 13.2A6.6 6.6 0 0 0 8 1.4zm0 1.7a4.9 4.9 0 1 1 0 9.8 4.9 4.9 0 0 1 0-9.8zM7.2 4.6v4l2.9 1.8.8-1.3-2.1-1.3V4.6z",
  stop: SHAPES.terminated,
  flag: "M3 1.5h1.5v.8h8.3l-1.9 3.1 1.9 3.1H4.5v6H3z",
  check: SHAPES.submitted,
  pages: "M1.6 2.4h8.6v2H6.4c-.9 0-1.6.7-1.6 1.6v4.6H1.6zm4.6 3.2h8.2v8H6.2z",
  search: "M6.8 1.6a5.2 5.2 0 1 0 3.1 9.4l3.3 3.3 1.2-1.2-3.3-3.3a5.2 5.2 0 0 0-4.3-8.2zm0 1.7a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7z",
  download: "M7.2 1.6h1.6v6.6l2.3-2.3 1.1 1.1L8 11.2 3.8 7l1.1-1.1 2.3 2.3zM2 12.6h12v1.7H2z",
  table: "M1.8 2.6h12.4v2.6H1.8zm0 4.1h12.4v2.6H1.8zm0 4.1h12.4v2.6H1.8z",
  tiles: "M1.8 1.8h5.4v5.4H1.8zm7 0h5.4v5.4H8.8zm-7 7h5.4v5.4H1.8zm7 0h5.4v5.4H8.8z",
  gear: "M6.8 1.2h2.4l.4 1.9 1.3.6 1.7-1 1.6 1.7-1 1.6.6 1.3 1.9.4v2.4l-1.9.4-.6 1.3 1 1.7-1.6 1.6-1.7-1-1.3.6-.4 1.9H6.8l-.4-1.9-1.3-.6-1.6 1-1.7-1.6 1-1.7-.6-1.3-1.9-.4V7.7l1.9-.4.6-1.3-1-1.6 1.7-1.7 1.6 1 1.3-.6zM8 5.9a2.4 2.4 0 1 0 0 4.8 2.4 2.4 0 0 0 0-4.8z",
  close: SHAPES.offline,
  more: SHAPES.reconnecting,
  help: "M8 1.4a6.6 6.6 0 1 0 0 13.2A6.6 6.6 0 0 0 8 1.4zM7.2 11h1.6v1.6H7.2zM8 3.6c1.6 0 2.7 1 2.7 2.4 0 1.1-.6 1.7-1.2 2.2-.5.4-.7.6-.7 1.1v.6H7.2v-.7c0-1.1.6-1.6 1.2-2.1.5-.4.7-.6.7-1.1 0-.5-.4-.9-1.1-.9-.7 0-1.2.5-1.2 1.2H5.2c0-1.6 1.2-2.7 2.8-2.7z",
};

const SVG = "http://www.w3.org/2000/svg";

/** A picture as an element. Words beside it say the same, so it is hidden from readers of words. */
export function mark(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("mark");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("fill-rule", "evenodd");
  svg.append(path);
  draw(svg, name);
  return svg;
}

/** Change a picture into another. */
export function draw(svg, name) {
  svg.firstChild.setAttribute("d", SHAPES[name] ?? PICTURES[name]);
}
