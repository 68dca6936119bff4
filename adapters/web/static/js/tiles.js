// The tile map: every student at a glance, a tile each, grouped; shape and colour tell the status. One canvas, so that ten thousand
// tiles cost no more than the few that changed.

import { setText } from "./dom.js";
import { describe } from "./grid.js";
import { t } from "./i18n.js";
import { LABELS, SHAPES } from "./marks.js";

const PATHS = Object.fromEntries(LABELS.map(label => [label, new Path2D(SHAPES[label])]));
const HEAD = 26;
const PAD = 4;
const GAP = 24; // between groups that stand side by side
const FOOT = 10;
const LEAST_ACROSS = 8;
const MOST_COLUMNS = 6;

/** How many groups stand side by side so that all take the least height, and how many tiles each is wide. */
function bestColumns(sizes, width, size) {
  let best = null;
  for (let columns = 1; columns <= Math.min(MOST_COLUMNS, Math.max(1, sizes.length)); columns += 1) {
    const across = Math.floor((width - (columns - 1) * GAP) / columns / size);
    if (best && across < LEAST_ACROSS) break;
    let height = 0;
    for (let first = 0; first < sizes.length; first += columns) {
      height += HEAD + FOOT + Math.ceil(Math.max(...sizes.slice(first, first + columns)) / Math.max(1, across)) * size;
    }
    if (!best || height < best.height) best = { columns, across: Math.max(1, across), height };
  }
  return best;
}

export class Tiles {
  constructor({ scroller, canvas, tip, say, query, onOpen }) {
    Object.assign(this, { scroller, canvas, tip, say, query, onOpen });
    this.at = -1;
    this.places = new Map(); // student -> [x, y]
    this.order = [];
    this.blocks = []; // groups where they stand
    this.context = canvas.getContext("2d");
    new ResizeObserver(() => (this.width = 0)).observe(scroller);
    canvas.addEventListener("pointermove", event => this._hover(event));
    canvas.addEventListener("pointerleave", () => this._tip(null));
    canvas.addEventListener("click", event => {
      const index = this._find(event.offsetX, event.offsetY);
      if (index < 0) return;
      this.at = index;
      onOpen(this.order[index]);
    });
    canvas.addEventListener("keydown", event => this._key(event));
    canvas.addEventListener("blur", () => this._tip(null));
    this.colours = null;
  }

  /** Colours or words changed. */
  restyle() {
    this.colours = null;
    this.width = 0;
  }

  paint(dirty, reordered, now) {
    this.time = now;
    const width = this.scroller.clientWidth - 2 * PAD;
    if (reordered || width !== this.width || this.rows !== this.query.rows) {
      this.width = width;
      this.rows = this.query.rows;
      this._lay();
      return;
    }
    for (const student of dirty) if (this.places.has(student)) this._tile(student);
  }

  _lay() {
    const { rows, width } = this, ratio = devicePixelRatio || 1;
    this.colours ??= this._colours();
    const size = (this.size = rows.length > 4000 ? 17 : rows.length > 1200 ? 22 : 30);
    const groups = new Map();
    for (const student of rows) {
      const name = student.view.group;
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(student);
    }
    const named = [...groups].sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true }));
    this.places.clear();
    this.order = [];
    this.blocks = [];
    const { columns, across } = bestColumns(named.map(([, members]) => members.length), width, size);
    const step = across * size + GAP;
    let y = PAD;
    for (let first = 0; first < named.length; first += columns) {
      let tallest = 0;
      named.slice(first, first + columns).forEach(([name, members], column) => {
        const head = named.length > 1 || name ? HEAD : 0;
        const block = { name: head ? name || t("ungrouped") : "", many: members.length, first: this.order.length, x: PAD + column * step, y: y + head, across };
        this.blocks.push(block);
        members.forEach((student, n) => {
          this.places.set(student, [block.x + (n % across) * size, block.y + Math.floor(n / across) * size]);
          this.order.push(student);
        });
        tallest = Math.max(tallest, head + Math.ceil(members.length / across) * size);
      });
      y += tallest + FOOT;
    }
    this.index = new Map(this.order.map((student, n) => [student, n]));
    this.canvas.width = Math.max(1, Math.round((width + 2 * PAD) * ratio));
    this.canvas.height = Math.max(1, Math.round((y + PAD) * ratio));
    this.canvas.style.width = `${width + 2 * PAD}px`;
    this.canvas.style.height = `${y + PAD}px`;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.context.font = `600 12px ${getComputedStyle(document.body).fontFamily}`;
    this.context.textBaseline = "top";
    for (const { name, many, x, y: top } of this.blocks) {
      if (!name) continue;
      this.context.fillStyle = this.colours.ink;
      this.context.fillText(name, x + 2, top - HEAD + 5);
      const wide = this.context.measureText(name).width;
      this.context.fillStyle = this.colours.soft;
      this.context.fillText(String(many), x + wide + 10, top - HEAD + 5);
    }
    for (const student of this.order) this._tile(student);
  }

  _tile(student) {
    const [x, y] = this.places.get(student), { context, size, colours } = this;
    const { label } = student.view, colour = colours[label];
    const side = size - 3;
    context.clearRect(x - 1, y - 1, size, size);
    context.globalAlpha = label === "active" || label === "submitted" || label === "not_joined" ? 0.14 : 0.28;
    context.fillStyle = colour;
    context.beginPath();
    context.roundRect(x, y, side, side, size > 20 ? 6 : 4);
    context.fill();
    context.globalAlpha = 1;
    const scale = ((label === "active" || label === "not_joined" ? 0.42 : 0.6) * side) / 16;
    const inset = (side - 16 * scale) / 2;
    context.save();
    context.translate(x + inset, y + inset);
    context.scale(scale, scale);
    context.fill(PATHS[label], "evenodd");
    context.restore();
    if (student.has("hand_raised")) {
      context.strokeStyle = colours.accent;
      context.lineWidth = 2;
      context.strokeRect(x + 1, y + 1, side - 2, side - 2);
    }
    if (this.order[this.at] === student && document.activeElement === this.canvas) {
      context.strokeStyle = colours.ink;
      context.lineWidth = 2;
      context.strokeRect(x, y, side, side);
    }
  }

  _colours() {
    const style = getComputedStyle(document.documentElement);
    const of = name => style.getPropertyValue(`--${name}`).trim();
    return { ...Object.fromEntries(LABELS.map(label => [label, of(label === "away" ? "away-mark" : label)])), ink: of("ink"), soft: of("ink-2"), accent: of("accent") };
  }

  _find(x, y) {
    const { size } = this;
    for (const block of this.blocks) {
      const column = Math.floor((x - block.x) / size), row = Math.floor((y - block.y) / size);
      const n = row * block.across + column;
      if (column >= 0 && column < block.across && row >= 0 && n < block.many) return block.first + n;
    }
    return -1;
  }

  /** The nearest tile above or below; the same one if there is none. */
  _beyond(index, down) {
    const [x, y] = this.places.get(this.order[index]);
    let best = index, least = Infinity;
    this.order.forEach((student, n) => {
      const [left, top] = this.places.get(student);
      const away = (top - y) * down;
      const distance = away > 0 ? away * 10_000 + Math.abs(left - x) : Infinity; // rows first, then how far to the side
      if (distance < least) [best, least] = [n, distance];
    });
    return best;
  }

  _hover(event) {
    const index = this._find(event.offsetX, event.offsetY);
    this.canvas.classList.toggle("on-tile", index >= 0);
    this._tip(index >= 0 ? this.order[index] : null);
  }

  _tip(student) {
    const { tip } = this;
    tip.hidden = !student;
    if (!student) return;
    setText(tip, describe(student, this.time));
    const [x, y] = this.places.get(student);
    const box = this.canvas.getBoundingClientRect(), around = this.scroller.getBoundingClientRect();
    const left = Math.min(box.left - around.left + x, around.width - tip.offsetWidth - 12);
    tip.style.transform = `translate(${Math.max(8, left)}px, ${box.top - around.top + y + this.size + 4}px)`;
  }

  _key(event) {
    const moves = { ArrowRight: at => at + 1, ArrowLeft: at => at - 1, ArrowDown: at => this._beyond(at, 1), ArrowUp: at => this._beyond(at, -1) };
    if (event.key in moves) {
      const before = this.order[this.at];
      this.at = before ? Math.max(0, Math.min(this.order.length - 1, moves[event.key](this.at))) : 0;
      const student = this.order[this.at];
      if (!student) return;
      if (before) this._tile(before);
      this._tile(student);
      this._tip(student);
      setText(this.say, describe(student, this.time));
      const [, y] = this.places.get(student);
      if (y < this.scroller.scrollTop) this.scroller.scrollTop = y - 20;
      else if (y + this.size > this.scroller.scrollTop + this.scroller.clientHeight) this.scroller.scrollTop = y + this.size - this.scroller.clientHeight + 8;
    } else if (event.key === "Enter" && this.order[this.at]) this.onOpen(this.order[this.at]);
    else return;
    event.preventDefault();
  }
}
