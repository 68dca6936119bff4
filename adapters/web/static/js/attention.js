// The zone on top: who needs somebody, newest first, in an order that holds still under the pointer.

import { button, h, setText } from "./dom.js";
import { duration } from "./format.js";
import { t } from "./i18n.js";
import { draw, mark } from "./marks.js";

const MOST = 40;
const SETTLED = { offline: "settled", away: "settled", hand_raised: "settled_hand" };
const PICTURES = { hand_raised: "hand", several_pages: "pages", flagged: "flag", offline: "offline", away: "away" };

class Line {
  constructor(zone) {
    this.picture = mark("offline");
    this.name = h("button", { type: "button", class: "name", onclick: () => zone.onOpen(this.student) });
    this.where = h("span", { class: "where" });
    this.why = h("span", { class: "why" });
    this.since = h("span", { class: "since number" });
    this.message = button("message", null, { class: "quiet icon", onclick: () => zone.onMessage(this.student) });
    this.done = button("check", null, { class: "quiet", onclick: () => zone.onAcknowledge(this.student) });
    this.doneText = h("span", { class: "wide-only" });
    this.done.append(this.doneText);
    this.element = h("li", { class: "line" }, this.picture, this.name, this.where, this.why, this.since, this.message, this.done);
  }

  paint(entry, now) {
    const { student, reasons, ended } = entry;
    const is_new = this.student !== student;
    this.student = student;
    const [what, since] = reasons[0] ?? ["offline", null];
    this.element.dataset.what = ended ? "settled" : what;
    draw(this.picture, ended ? student.label : PICTURES[what]);
    setText(this.name, student.name);
    setText(this.where, student.view.group);
    setText(this.why, ended ? t(SETTLED[what] ?? "settled_other") : reasons.map(([each]) => t(`reason_${each}`)).join(" · "));
    setText(this.since, !ended && since ? duration(now - since) : "");
    if (!is_new) return;
    setText(this.doneText, t("acknowledge"));
    this.done.setAttribute("aria-label", `${t("acknowledge")}: ${student.name}`);
    this.done.title = t("acknowledge_hint");
    this.message.setAttribute("aria-label", `${t("message")}: ${student.name}`);
    this.message.title = t("message");
  }
}

export class Attention {
  constructor({ section, list, title, empty, more, students, onOpen, onMessage, onAcknowledge, onAll }) {
    Object.assign(this, { section, list, title, empty, more, students, onOpen, onMessage, onAcknowledge });
    this.lines = new Map(); // student id -> Line
    this.more.addEventListener("click", () => (this.waiting ? this._letIn() : onAll()));
    this.waiting = 0;
    this.unsorted = false; // whether all came at once, and so stand in no order
    section.addEventListener("pointerleave", () => this._letIn());
    section.addEventListener("focusout", () => this._letIn());
  }

  spoken() {
    for (const line of this.lines.values()) line.student = null;
  }

  _letIn() {
    this.open = true;
  }

  /** Newest first, of those who were there before this page was. */
  _sort() {
    this.unsorted = false;
    const began = ({ student }) => this.students.attention.get(student.id).reasons[0]?.[1] ?? 0;
    for (const line of [...this.lines.values()].sort((a, b) => began(a) - began(b))) this.list.prepend(line.element);
  }

  /** Paint the zone. While somebody points at it or works in it, newcomers wait outside so that nothing moves. */
  paint(now) {
    const { attention } = this.students;
    const busy = !this.open && (this.section.matches(":hover") || this.section.contains(document.activeElement));
    this.open = false;
    for (const [id, line] of this.lines) {
      if (attention.has(id)) continue;
      line.element.remove();
      this.lines.delete(id);
    }
    const hidden = [];
    const moved = this.unsorted && !busy;
    for (const [id, entry] of attention) {
      let line = this.lines.get(id);
      if (!line) {
        if ((busy && this.lines.size) || this.lines.size >= MOST) {
          hidden.push(id);
          continue;
        }
        line = new Line(this);
        this.lines.set(id, line);
        this.list.prepend(line.element);
      }
      line.paint(entry, now);
    }
    if (moved) this._sort();
    this.waiting = this.lines.size < MOST ? hidden.length : 0;
    const text = this.waiting ? t("attention_new", { n: hidden.length }) : t("attention_more", { n: hidden.length });
    this.more.hidden = hidden.length === 0;
    if (hidden.length) setText(this.more, text);
    const many = attention.size;
    setText(this.title, String(many));
    this.title.hidden = many === 0;
    this.section.classList.toggle("quiet", many === 0);
    this.empty.hidden = many > 0;
    this.list.hidden = many === 0;
  }
}
