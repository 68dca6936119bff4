// The table of students: only the rows in view exist, each is bound to a student and repainted when that student changed.
//
// The rows are one grid for readers (`aria-rowcount`, `aria-rowindex`), with one tab stop and an active row.

import { Virtualizer, elementScroll, observeElementOffset, observeElementRect } from "../vendor/tanstack-virtual-core/virtual-core.js";
import { h, setAttribute, setText } from "./dom.js";
import { clock, count, duration } from "./format.js";
import { t } from "./i18n.js";
import { draw, mark } from "./marks.js";

const OVERSCAN = 8;
const HEIGHTS = { comfortable: 48, compact: 36, narrow: 76 };
const NARROW = matchMedia("(max-width: 46rem)");
const CALM = matchMedia("(prefers-reduced-motion: reduce)");
const FLAGS = { hand_raised: "hand", several_pages: "pages", flagged: "flag", warned: "warn" };
const LOW_SECONDS = 300;

/** What is looked for at its most; names, statuses and time left go upwards. */
const MOST_FIRST = new Set(["risk", "away", "answered", "question", "score"]);

const COLUMNS = [
  { id: "status", sort: "status" },
  { id: "student", sort: "name" },
  { id: "question", sort: "question" },
  { id: "progress", sort: "answered" },
  { id: "left", sort: "left" },
  { id: "away", sort: "away" },
  { id: "score", sort: "score" },
  { id: "flags", sort: null },
  { id: "risk", sort: "risk" },
];

/** How long a label has held, for people. */
export function sinceText(student, now) {
  const since = student.labelSince();
  return since === null ? "" : clock(now - since);
}

class Row {
  constructor(grid) {
    this.student = null;
    this.index = -1;
    this.flash = "";
    const cell = (name, ...content) => h("div", { role: "gridcell", class: `cell ${name}` }, ...content);
    this.box = h("input", { type: "checkbox", tabindex: -1 });
    this.shape = mark("active");
    this.word = h("span", { class: "word" });
    this.since = h("span", { class: "since number" });
    this.name = h("span", { class: "name" });
    this.under = h("span", { class: "under" });
    this.question = cell("question number");
    this.bar = h("span", { class: "bar" }, h("i"));
    this.answered = h("span", { class: "number" });
    this.left = cell("left number");
    this.away = cell("away number");
    this.score = cell("score number");
    this.flags = cell("flags");
    this.riskBar = h("span", { class: "bar risk" }, h("i"));
    this.riskText = h("span", { class: "number" });
    this.status = cell("status", this.shape, h("span", { class: "stack" }, this.word, this.since));
    this.element = h(
      "div",
      { role: "row", class: "row" },
      cell("select", h("label", { class: "tick" }, this.box)),
      this.status,
      cell("student", h("span", { class: "stack" }, this.name, this.under)),
      this.question,
      cell("progress", this.bar, this.answered),
      this.left,
      this.away,
      this.score,
      this.flags,
      cell("risk", this.riskBar, this.riskText),
    );
    [...this.element.children].forEach((child, n) => child.setAttribute("aria-colindex", n + 1));
    this.box.addEventListener("click", event => {
      event.stopPropagation();
      grid.toggle(this.student, this.index, event.shiftKey);
    });
    this.element.addEventListener("click", event => {
      if (event.target.closest(".tick")) return;
      grid.activate(this.index);
      grid.onOpen(this.student);
    });
  }

  /** Show this student, or show them again. */
  paint(grid, student, index, start, now) {
    const { element } = this, { view } = student, is_new = student !== this.student;
    if (index !== this.index || is_new) {
      this.index = index;
      element.id = `row-${index}`;
      element.setAttribute("aria-rowindex", index + 2);
    }
    if (this.start !== start) element.style.transform = `translateY(${(this.start = start)}px)`;
    this.student = student;
    if (this.label !== view.label) {
      if (!is_new && !CALM.matches) this.status.animate({ opacity: [0.25, 1] }, 600);
      this.label = view.label;
      element.dataset.label = view.label;
      draw(this.shape, view.label);
    }
    setText(this.word, t(view.label));
    setText(this.since, sinceText(student, now));
    setText(this.name, student.name);
    setText(this.under, student.name === student.id ? view.group : view.group ? `${student.id} · ${view.group}` : student.id);
    setText(this.question, view.question_number_current ? t("question_n", { n: view.question_number_current }) : "");
    const { question_answered: answered, question_total: total } = view;
    setText(this.answered, total ? t("answered_of", { n: answered, of: total }) : "");
    this.bar.hidden = !total;
    if (total) this.bar.firstChild.style.width = `${Math.min(100, (100 * answered) / total)}%`;
    const left = student.secondsLeft(now);
    setText(this.left, left === null ? "" : left > 0 ? clock(left) : t("over"));
    this.left.classList.toggle("low", left !== null && left < LOW_SECONDS);
    setText(this.away, view.away_count ? t("away_times", { n: view.away_count, d: clock(student.awaySeconds(now)) }) : "");
    setText(this.score, view.score === null ? "" : grid.showScores ? count(view.score) : "•••");
    const flags = view.flags.join();
    if (this.flagged !== flags) {
      this.flagged = flags;
      this.flags.replaceChildren(
        ...view.flags.filter(flag => flag in FLAGS).map(flag => {
          const chip = h("span", { class: `chip ${flag}`, title: t(flag) }, mark(FLAGS[flag]));
          chip.append(h("span", { class: "visually-hidden" }, t(flag)));
          return chip;
        }),
      );
    }
    const risk = student.risk(now);
    setText(this.riskText, risk ? String(risk) : "");
    this.riskBar.hidden = !risk;
    if (risk) this.riskBar.firstChild.style.width = `${Math.min(100, risk)}%`;
    const chosen = grid.selection.has(student.id);
    if (this.box.checked !== chosen) this.box.checked = chosen;
    if (is_new) this.box.setAttribute("aria-label", t("select_student", { name: student.name }));
    setAttribute(element, "aria-selected", chosen);
    element.classList.toggle("current", index === grid.active);
  }
}

export class Grid {
  /** `query.rows` are shown; `onOpen(student)` opens one, `onSelect()` hears of a changed selection. */
  constructor({ scroller, query, onOpen, onSelect, onSort }) {
    Object.assign(this, { scroller, query, onOpen, onSelect, onSort });
    this.selection = new Set();
    this.active = -1;
    this.showScores = false;
    this.density = "comfortable";
    this.rows = new Map();
    this.spare = [];
    this.moved = true;
    this.anchor = 0;
    this.body = h("div", { class: "rows", role: "rowgroup" });
    this.all = h("input", { type: "checkbox", onchange: () => this._selectAll() });
    this.heads = new Map();
    this.head = h("div", { role: "row", class: "row head", "aria-rowindex": 1 });
    scroller.append(h("div", { role: "rowgroup", class: "heads" }, this.head), this.body);
    this.virtual = new Virtualizer(this._options(0));
    this.virtual._didMount();
    this.virtual._willUpdate();
    this.spoken();
    NARROW.addEventListener("change", () => this.resized());
    scroller.addEventListener("keydown", event => this._key(event));
    scroller.addEventListener("focus", () => this.active < 0 && this.query.rows.length && this.activate(0));
  }

  _options(length) {
    return {
      count: length,
      getScrollElement: () => this.scroller,
      estimateSize: () => this.height,
      overscan: OVERSCAN,
      scrollToFn: elementScroll,
      observeElementRect,
      observeElementOffset,
      onChange: () => (this.moved = true),
      scrollPaddingStart: 40,
    };
  }

  get height() {
    return NARROW.matches ? HEIGHTS.narrow : HEIGHTS[this.density];
  }

  /** Row heights changed. */
  resized() {
    document.documentElement.dataset.density = this.density;
    this.virtual.measure();
    this.moved = true;
  }

  /** The language changed. */
  spoken() {
    this.all.setAttribute("aria-label", t("select_all"));
    const first = h("div", { role: "columnheader", class: "cell select", "aria-colindex": 1 }, h("label", { class: "tick" }, this.all));
    this.head.replaceChildren(first, ...COLUMNS.map(({ id, sort }, n) => {
      const text = t(`col_${id}`);
      const content = sort ? h("button", { type: "button", class: "sort", onclick: () => this.onSort(sort) }, text, h("i", { class: "arrow" })) : text;
      const head = h("div", { role: "columnheader", class: `cell ${id}`, "aria-colindex": n + 2 }, content);
      this.heads.set(id, head);
      return head;
    }));
    for (const row of this.rows.values()) row.flagged = row.student = null;
    for (const row of this.spare) row.flagged = row.student = null;
    this.moved = true;
  }

  /** Paint what changed: everything in view if rows moved or a second passed, else the students in `dirty`. */
  paint(dirty, reordered, tick, now) {
    const { rows: students } = this.query;
    if (reordered || this.virtual.options.count !== students.length) {
      this.virtual.setOptions(this._options(students.length));
      this.virtual._willUpdate();
      this.body.style.height = `${this.virtual.getTotalSize()}px`;
      setAttribute(this.scroller, "aria-rowcount", students.length + 1);
      this.moved = true;
      if (this.active >= 0) this.active = this.activeStudent ? students.indexOf(this.activeStudent) : -1;
    }
    if (!this.moved && !tick && !dirty.size) return;
    if (this.moved) {
      this.body.style.height = `${this.virtual.getTotalSize()}px`;
      this._arrange(students, now);
    } else {
      for (const [index, row] of this.rows) {
        if (tick || dirty.has(students[index])) row.paint(this, students[index], index, row.start, now);
      }
    }
    this.moved = false;
  }

  _arrange(students, now) {
    const items = this.virtual.getVirtualItems();
    const wanted = new Set(items.map(item => item.index));
    for (const [index, row] of this.rows) {
      if (wanted.has(index)) continue;
      this.rows.delete(index);
      this.spare.push(row);
    }
    for (const { index, start } of items) {
      const student = students[index];
      if (!student) continue;
      let row = this.rows.get(index);
      if (!row) {
        row = this.spare.pop() ?? new Row(this);
        this.rows.set(index, row);
        if (!row.element.isConnected) this.body.append(row.element);
      }
      row.paint(this, student, index, start, now);
    }
    for (const row of this.spare) row.element.remove();
    for (const [id, head] of this.heads) {
      const sorted = COLUMNS.find(column => column.id === id).sort === this.query.sort;
      setAttribute(head, "aria-sort", sorted && (MOST_FIRST.has(this.query.sort) === this.query.reversed ? "ascending" : "descending"));
    }
    const active = this.rows.get(this.active);
    setAttribute(this.scroller, "aria-activedescendant", active?.element.id);
    this._tickAll();
  }

  // --- the active row and the selection ---

  get activeStudent() {
    return this._activeStudent ?? null;
  }

  activate(index) {
    this.active = Math.max(0, Math.min(this.query.rows.length - 1, index));
    this._activeStudent = this.query.rows[this.active] ?? null;
    this.virtual.scrollToIndex(this.active, { align: "auto" });
    this.moved = true;
  }

  move(by) {
    if (this.query.rows.length) this.activate(this.active + by);
  }

  toggle(student, index, through) {
    const on = !this.selection.has(student.id);
    const [from, to] = through ? [Math.min(this.anchor, index), Math.max(this.anchor, index)] : [index, index];
    for (const each of this.query.rows.slice(from, to + 1)) {
      if (on) this.selection.add(each.id);
      else this.selection.delete(each.id);
    }
    this.anchor = index;
    this._selected();
  }

  clearSelection() {
    this.selection.clear();
    this._selected();
  }

  _selectAll() {
    const { rows } = this.query;
    const every = rows.every(student => this.selection.has(student.id));
    for (const { id } of rows) {
      if (every) this.selection.delete(id);
      else this.selection.add(id);
    }
    this._selected();
  }

  _tickAll() {
    const { rows } = this.query;
    this.all.checked = this.selection.size > 0 && rows.length > 0 && this.selection.size >= rows.length;
    this.all.indeterminate = this.selection.size > 0 && !this.all.checked;
  }

  _selected() {
    this.moved = true;
    this.onSelect();
  }

  _key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.scroller) return;
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / this.height) - 2);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in moves) {
      const by = moves[event.key];
      if (Number.isFinite(by)) this.move(by);
      else this.activate(by < 0 ? 0 : this.query.rows.length - 1);
    } else if (event.key === "Enter" && this.activeStudent) this.onOpen(this.activeStudent);
    else if (event.key === " " && this.activeStudent) this.toggle(this.activeStudent, this.active, event.shiftKey);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

/** What a row says, in one sentence, for readers and tooltips. */
export function describe(student, now) {
  const { view } = student;
  const since = student.labelSince();
  const parts = [student.name, since === null ? t(view.label) : `${t(view.label)} ${t("for", { d: duration(now - since) })}`];
  if (view.question_total) parts.push(t("answered_words", { n: view.question_answered, of: view.question_total }));
  parts.push(...view.flags.map(flag => t(flag)));
  return parts.join(", ");
}

