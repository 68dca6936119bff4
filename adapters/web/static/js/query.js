// Which students are shown, and in which order. Kept in the address, so that a view can be bookmarked.

import { LABELS } from "./marks.js";

const SETTLE_MS = 1_000;

const KEYS = {
  name: () => 0,
  risk: (student, now) => -student.risk(now),
  status: student => LABELS.indexOf(student.label),
  left: (student, now) => student.secondsLeft(now) ?? Infinity,
  away: (student, now) => -student.awaySeconds(now),
  answered: student => -student.view.question_answered,
  question: student => -student.view.question_number_current,
  score: student => -(student.view.score ?? -Infinity),
};

export const SORTS = Object.keys(KEYS);

export class Query {
  constructor(students, onChange) {
    this.students = students;
    this.onChange = onChange;
    const given = new URLSearchParams(location.search);
    this.labels = new Set((given.get("status") ?? "").split(",").filter(label => LABELS.includes(label)));
    this.text = given.get("q") ?? "";
    this.group = given.get("group") ?? "";
    this.sort = SORTS.includes(given.get("sort")) ? given.get("sort") : "name";
    this.reversed = given.has("reversed");
    this.attentionOnly = given.has("attention");
    this.held = false;
    this.rows = [];
    this._at = 0;
    this._stale = true;
  }

  /** Change what is asked for, at once. */
  set(changes) {
    Object.assign(this, changes);
    this._stale = true;
    const address = new URLSearchParams();
    if (this.labels.size) address.set("status", [...this.labels].join(","));
    if (this.text) address.set("q", this.text);
    if (this.group) address.set("group", this.group);
    if (this.sort !== "name") address.set("sort", this.sort);
    if (this.reversed) address.set("reversed", "");
    if (this.attentionOnly) address.set("attention", "");
    const text = address.toString();
    history.replaceState(null, "", text ? `?${text}` : location.pathname);
    this.onChange();
  }

  get isFiltered() {
    return Boolean(this.labels.size || this.text || this.group || this.attentionOnly);
  }

  clear() {
    this.set({ labels: new Set(), text: "", group: "", attentionOnly: false });
  }

  matches(student) {
    if (this.labels.size && !this.labels.has(student.label)) return false;
    if (this.group && student.view.group !== this.group) return false;
    if (this.attentionOnly && !this.students.attention.has(student.id)) return false;
    return !this.text || student.searched.includes(this.text.toLocaleLowerCase());
  }

  /** Bring the rows up to date; whether they changed. Changes of the students settle once a second, and not while the order is held
   * or somebody is picking rows. */
  refresh(at, now, picking) {
    const due = this.students.changed && !this.held && !picking && at - this._at >= SETTLE_MS;
    if (!this._stale && !due) return false;
    if (due && this.sort === "name" && !this.isFiltered && this.rows.length === this.students.size && !this.students._names) {
      this.students.changed = false; // nothing that changed bears on the order
      this._at = at;
      return false;
    }
    this._stale = false;
    this._at = at;
    this.students.changed = false;
    this.students.ranks();
    const key = KEYS[this.sort], sign = this.reversed ? -1 : 1;
    const keyed = [];
    for (const student of this.students.byId.values()) if (this.matches(student)) keyed.push([key(student, now), student.rank, student]);
    keyed.sort((a, b) => sign * (a[0] === b[0] ? a[1] - b[1] : a[0] < b[0] ? -1 : 1));
    const rows = keyed.map(each => each[2]);
    const same = rows.length === this.rows.length && rows.every((student, n) => student === this.rows[n]);
    if (!same) this.rows = rows;
    return !same;
  }
}
