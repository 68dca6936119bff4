// What the service has kept from before this page was opened: timelines and conversations, read over the HTTP API with the
// proctor's own token. The record there is the truth; what this page saw itself is shown until the record has it.

import { wholeId } from "./students.js";

const PAGE = 50;
const SOON_MS = 800; // the record has a thing within a moment
const LATER_MS = 3_000;
const SAME_SECONDS = 5; // what was seen here and what is recorded, of one thing

/** The exam's record. Every method throws an Error that says why in the service's words. */
export class Archive {
  /** `token()` is asked each time, because it is refreshed. */
  constructor({ quizId, token }) {
    this.quizId = quizId;
    this.token = token;
  }

  async _get(address, signal) {
    const response = await fetch(address, { headers: { Authorization: `Bearer ${this.token()}` }, signal });
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.detail ?? `${response.status} ${response.statusText}`);
  }

  _address(what, query) {
    const address = new URL(`api/exams/${encodeURIComponent(this.quizId)}/${what}`, location.href);
    for (const [name, value] of Object.entries(query)) if (value != null) address.searchParams.set(name, value);
    return address;
  }

  /** A page of the `timeline` or the `conversation`, newest first. */
  async page(what, { studentId, cursor, signal } = {}) {
    const query = { student_id: studentId, order: "newest", limit: PAGE, cursor };
    return (await this._get(this._address(what, query), signal)).json();
  }

  /** Say which file this page makes by itself, for the school's audit log. The file does not wait for that. */
  note(name, rows) {
    const headers = { Authorization: `Bearer ${this.token()}`, "Content-Type": "application/json" };
    fetch(this._address("files", {}), { method: "POST", headers, body: JSON.stringify({ name, rows }), keepalive: true }).catch(() => {});
  }

  /** A whole file, such as `timeline.csv`, of one student or of all. Where answers have an end, the next one is named in a Link. */
  async file(what, studentId) {
    const parts = [];
    let address = this._address(what, { student_id: studentId });
    while (address) {
      const response = await this._get(address);
      parts.push(await response.blob());
      const [, next] = (response.headers.get("Link") ?? "").match(/<([^>]+)>;\s*rel="next"/) ?? [];
      address = next ? new URL(next, address) : null;
    }
    return new Blob(parts, { type: "text/csv;charset=utf-8" });
  }
}

/** One student's record, page by page, newest first, together with what happened since it was read. */
export class Story {
  constructor({ archive, student, onChange }) {
    Object.assign(this, { archive, student, onChange });
    this.state = "loading"; // ready, failed
    this.problem = "";
    this.next = null; // where the earlier part is; null if all of it is here
    this._lines = new Map();
    this._asOf = 0;
    this._noted = 0;
    this._alarm = 0;
    this._asking = null;
  }

  /** The drawer shows this student (again). */
  open() {
    this._noted = this.student.noted;
    this._read(signal => this._newest(signal));
  }

  close() {
    clearTimeout(this._alarm);
    this._asking?.abort();
    this._asking = null;
  }

  more() {
    const { next } = this;
    if (next) this._read(async signal => this._take(await this.archive.page("timeline", { studentId: this.student.id, cursor: next, signal }), true));
  }

  /** Something may have happened: then the record is read again in a moment. */
  watch() {
    if (this._noted === this.student.noted) return;
    this._noted = this.student.noted;
    this._again(SOON_MS);
  }

  _again(delay) {
    clearTimeout(this._alarm);
    this._alarm = setTimeout(() => this._read(signal => this._newest(signal)), delay);
  }

  /** One question at a time; who asks meanwhile is served after it. */
  async _read(ask) {
    if (this._asking) return this._again(SOON_MS);
    const asking = (this._asking = new AbortController());
    try {
      await ask(asking.signal);
      this.state = "ready";
    } catch (error) {
      if (asking.signal.aborted) return undefined;
      this.state = "failed";
      this.problem = error.message;
    }
    this._asking = null;
    if (this.state === "ready" && this._unrecorded().length) this._again(LATER_MS);
    this.onChange();
    return undefined;
  }

  async _newest(signal) {
    const first = this._lines.size === 0;
    const studentId = this.student.id;
    const [timeline, talk] = await Promise.all([
      this.archive.page("timeline", { studentId, signal }),
      first ? this.archive.page("conversation", { studentId, signal }) : null, // later lines are in the timeline, too
    ]);
    for (const line of talk?.lines ?? []) this.student.hear(said(line));
    this._take(timeline, first);
  }

  /** `ends`: whether this page is the earliest one that is known. */
  _take({ entries, next_cursor, server_time }, ends) {
    const overlaps = entries.some(entry => this._lines.has(keyOf(entry)));
    if (!ends && !overlaps && next_cursor) this._lines.clear(); // more happened than a page holds: begin again
    if (ends || this._lines.size === 0) this.next = next_cursor;
    for (const entry of entries) this._lines.set(keyOf(entry), entry);
    this._asOf = Math.max(this._asOf, server_time / 1000);
    for (const entry of entries) {
      const fromStudent = entry.kind === "message";
      const fromProctor = entry.kind === "command" && entry.after === "accepted" && SPOKEN.has(entry.cause);
      if (fromStudent || fromProctor) this.student.hear(said({ ...entry, kind: entry.cause, by: fromStudent ? "student" : "proctor" }));
    }
    const label = this.recorded().find(event => event.kind === "label");
    if (label?.after === this.student.label) this.student.since ??= label.at;
  }

  /** What the record has, newest first. */
  recorded() {
    const names = new Map();
    for (const entry of this._lines.values()) if (entry.kind === "command") names.set(wholeId(entry.reference), entry.cause);
    return [...this._lines.values()].sort((a, b) => b.at - a.at).map(entry => eventOf(entry, names));
  }

  /** What this page saw and the record does not have yet. */
  _unrecorded() {
    const since = this._asOf - SAME_SECONDS;
    const recent = [...this._lines.values()].filter(entry => entry.at > since - SAME_SECONDS).map(entry => eventOf(entry, new Map()));
    const isKnown = event => recent.some(known => known.kind === event.kind && (event.kind === "label"
      ? known.after === event.after && Math.abs(known.at - event.at) < SAME_SECONDS
      : known.reference === event.reference && known.outcome === event.outcome));
    return this.student.events.filter(event => event.at > since && isRecorded(event) && !isKnown(event));
  }

  /** Everything to show, newest first. While the record can't be read, that is what this page saw. */
  events() {
    if (this.state !== "ready" && !this._lines.size) return withDurations(this.student.events).reverse();
    return [...withDurations(this._unrecorded()).reverse(), ...this.recorded()];
  }
}

const RECORDED = new Set(["label", "message", "command", "attempt"]);
const RECEIPTS = new Set(["delivered", "confirmed", "expired"]);

const isRecorded = event => RECORDED.has(event.kind) || (event.kind === "receipt" && RECEIPTS.has(event.outcome));

const SPOKEN = new Set(["message", "warn"]);

const keyOf = entry => [entry.at, entry.kind, entry.cause, entry.before, entry.after, entry.reference].join(" ");

/** A line of a conversation as a student keeps it. */
function said({ reference, kind, text, at, by, actor }) {
  return { message_id: wholeId(reference), kind: by === "student" ? kind : "chat", text, at, mine: by === "proctor", who: by === "proctor" ? actor : "" };
}

/** A journal entry in the words of this page's own events. */
function eventOf(entry, names) {
  const { at, kind, cause, before, after, text, actor } = entry;
  const reference = wholeId(entry.reference);
  const common = { at, kind, reference, text, who: actor === "student" ? "" : actor };
  switch (kind) {
    case "label":
      return { ...common, before, after, cause: causeOf(cause, before, after), seconds: entry.duration_seconds };
    case "receipt":
      return { ...common, what: names.get(reference) ?? reference.split(".")[0], outcome: cause };
    case "command":
      return { ...common, what: cause, outcome: after === "refused" ? "refused" : undefined, everyone: entry.to_everyone };
    default:
      return { ...common, what: cause };
  }
}

/** What brought a label about: the journal names the event, the labels tell what it was. */
function causeOf(cause, before, after) {
  if (cause.startsWith("command")) return "proctor";
  if (cause === "deadline") return after === "timed_out" ? "time_over" : "silence";
  if (cause !== "reported" && cause !== "heartbeat") return cause; // left, dropped, lost_by_us
  if (after === "away") return "reported_away";
  if (after === "submitted") return "reported_submitted";
  if (after === "offline") return "left";
  if (after === "timed_out") return "time_over";
  if (before === "" || before === "not_joined") return "joined";
  return before === "away" ? "reported_back" : "heard_again";
}

/** A label lasts until the next one. */
function withDurations(events) {
  const labels = events.filter(event => event.kind === "label");
  return events.map(event => {
    const next = event.kind === "label" ? labels[labels.indexOf(event) + 1] : null;
    return next ? { ...event, seconds: next.at - event.at } : event;
  });
}
