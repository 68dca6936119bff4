// Everything known of the exam, and nothing about how it looks: views merged by version, counts, what needs attention, what
// happened since this page was opened. Views do not tick, so neither does this, but for episodes that are still going on.

import { LABELS } from "./marks.js";

const AWAY_NEEDS_ATTENTION_SECONDS = 30;
const OFFLINE_NEEDS_ATTENTION_SECONDS = 3; // who reloads the page is gone for a moment
const SETTLE_SECONDS = 5;
const MAX_EVENTS = 300;
const SNAPSHOT_AGE_MS = 5_000;

/** What the risk score adds up. Weights are plain numbers, so that anybody can check the sum. */
export const WEIGHTS = {
  offline: 40, away: 20, reconnecting: 10, flagged: 20, several_pages: 15,
  away_each: 5, away_count_most: 20, away_minute: 2, away_time_most: 20, offline_minute: 2, offline_time_most: 10,
};

/** The id of the command that this is a part of: parts share what comes before a number. */
export const wholeId = id => id.match(/^[^.]+\.[^.]+\.[^.]+/)?.[0] ?? id;

export class Student {
  constructor(view) {
    this.id = view.student_id;
    this.view = view;
    this.since = null; // when the present label began, if that is known
    this.events = []; // seen by this page
    this.noted = 0; // how many there have ever been
    this.messages = [];
    this.handSince = null;
    this.acknowledged = new Set(); // reasons, each with its beginning
    this.rank = 0; // place by name
    this.named();
  }

  named() {
    this.name = this.view.student_name || this.id;
    this.searched = `${this.view.student_name} ${this.id} ${this.view.group}`.toLocaleLowerCase();
  }

  get label() {
    return this.view.label;
  }

  has(flag) {
    return this.view.flags.includes(flag);
  }

  /** Since when the label is what it is, in epoch seconds; null if nobody knows. */
  labelSince() {
    if (this.label === "away" && this.view.away_since) return this.view.away_since;
    if (this.label === "offline" && this.view.offline_since) return this.view.offline_since;
    return this.view.label_since ?? this.since;
  }

  awaySeconds(now) {
    const { away_seconds, away_since } = this.view;
    return away_seconds + (away_since ? Math.max(0, now - away_since) : 0);
  }

  offlineSeconds(now) {
    const { offline_seconds, offline_since } = this.view;
    return offline_seconds + (offline_since ? Math.max(0, now - offline_since) : 0);
  }

  secondsLeft(now) {
    const { time_end, lifecycle } = this.view;
    return time_end && (lifecycle === "in_progress" || lifecycle === "paused") ? time_end - now : null;
  }

  /** The parts of the risk score: pairs of what and how much. */
  riskParts(now) {
    const { view } = this;
    const parts = [];
    const add = (what, points) => points > 0 && parts.push([what, Math.round(points)]);
    if (view.label in WEIGHTS) add(view.label, WEIGHTS[view.label]);
    add("away_count", Math.min(WEIGHTS.away_each * view.away_count, WEIGHTS.away_count_most));
    add("away_time", Math.min((WEIGHTS.away_minute * this.awaySeconds(now)) / 60, WEIGHTS.away_time_most));
    add("offline_time", Math.min((WEIGHTS.offline_minute * this.offlineSeconds(now)) / 60, WEIGHTS.offline_time_most));
    if (this.has("several_pages")) add("several_pages", WEIGHTS.several_pages);
    if (this.has("flagged")) add("flagged", WEIGHTS.flagged);
    return parts;
  }

  risk(now) {
    return this.riskParts(now).reduce((sum, [, points]) => sum + points, 0);
  }

  /** Why somebody should look: pairs of what and since when. */
  reasons(now) {
    const { view } = this;
    const found = [];
    if (this.has("hand_raised")) found.push(["hand_raised", this.handSince]);
    const since = this.labelSince() ?? 0;
    if (view.label === "offline" && now - since >= OFFLINE_NEEDS_ATTENTION_SECONDS) found.push(["offline", view.offline_since]);
    if (view.label === "away" && now - since >= AWAY_NEEDS_ATTENTION_SECONDS) found.push(["away", view.away_since]);
    if (view.lifecycle === "in_progress" && this.has("several_pages")) found.push(["several_pages", null]);
    if (this.has("flagged")) found.push(["flagged", null]);
    return found;
  }

  note(event) {
    this.events.push(event);
    this.noted += 1;
    if (this.events.length > MAX_EVENTS) this.events.shift();
  }

  /** Something was said, perhaps before now; false if it is known already. */
  hear(message) {
    if (this.messages.some(known => known.message_id === message.message_id)) return false;
    const after = this.messages.findIndex(known => known.at > message.at);
    this.messages.splice(after < 0 ? this.messages.length : after, 0, message);
    return true;
  }
}

export class Students {
  constructor() {
    this.byId = new Map();
    this.dirty = new Set(); // who changed since the last paint
    this.changed = true; // whether a list made before may be wrong
    this.counts = Object.fromEntries(LABELS.map(label => [label, 0]));
    this.connected = 0;
    this.running = 0;
    this.incidents = [];
    this.raised = new Set(); // who has a hand up
    this.attention = new Map(); // id -> { student, since, ended }
    this.updates = 0;
    this.complete = false; // whether a whole snapshot has come
    this._snapshot = null;
    this._names = false;
  }

  get size() {
    return this.byId.size;
  }

  groups() {
    const found = new Set();
    for (const student of this.byId.values()) if (student.view.group) found.add(student.view.group);
    return [...found].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  }

  // --- what the server says ---

  snapshot(data) {
    if (this._snapshot?.id !== data.snapshot_id) {
      this._snapshot = { id: data.snapshot_id, pages: new Set(), seen: new Set() };
    }
    const snapshot = this._snapshot;
    snapshot.pages.add(data.page);
    for (const view of data.participants) {
      snapshot.seen.add(view.student_id);
      this._merge(view, data.server_time / 1000, false);
    }
    this._learnIncidents(data.incidents);
    if (snapshot.pages.size < data.pages) return;
    // A version is a time in milliseconds: who is younger than the snapshot may have come after it was read.
    const read = data.server_time - SNAPSHOT_AGE_MS;
    for (const [id, { view }] of this.byId) if (!snapshot.seen.has(id) && view.version < read) this._remove(id);
    this._snapshot = null;
    this.complete = true;
  }

  update(data) {
    for (const view of data.participants) {
      this._merge(view, data.server_time / 1000, true);
    }
    this.updates += data.participants.length;
    this._learnIncidents(data.incidents);
  }

  message({ student_id, kind, text, message_id, server_time }) {
    const student = this.byId.get(student_id);
    const message = { message_id, student_id, kind, text, at: server_time / 1000, mine: false };
    if (!student) return message;
    if (!student.hear(message)) return null;
    if (kind === "raise_hand") student.handSince = message.at;
    if (kind === "lower_hand") student.handSince = null;
    student.note({ at: message.at, kind: "message", what: kind, text, reference: message_id });
    this._touch(student);
    return message;
  }

  /** What was said before this page was opened, newest first; those lines that are news here. */
  recall(lines) {
    return lines.filter(({ student_id, reference, kind, text, at, by, actor }) => {
      const student = this.byId.get(student_id);
      if (!student) return false;
      const fromStudent = by === "student";
      if (kind === "raise_hand" && student.has("hand_raised") && !student.messages.some(known => known.kind === "raise_hand")) student.handSince = at;
      this._touch(student);
      return student.hear({ message_id: wholeId(reference), student_id, kind: fromStudent ? kind : "chat", text, at, mine: !fromStudent, who: fromStudent ? "" : actor });
    });
  }

  _merge(view, at, live) {
    const known = this.byId.get(view.student_id);
    if (!known) {
      const student = new Student(view);
      if (live) student.since = at;
      this.byId.set(student.id, student);
      this._count(view, 1);
      this._names = true;
      this._touch(student);
      if (live) student.note({ at, kind: "label", before: "not_joined", after: view.label, cause: "joined" });
      return;
    }
    const before = known.view;
    if (view.version <= before.version) return;
    this._count(before, -1);
    this._count(view, 1);
    known.view = view;
    if (before.label !== view.label) {
      known.since = at;
      known.note({ at, kind: "label", before: before.label, after: view.label, cause: cause(before, view) });
    }
    for (const flag of view.flags) if (!before.flags.includes(flag)) known.note({ at, kind: "flag", what: flag });
    if (known.has("hand_raised") && !before.flags.includes("hand_raised")) known.handSince ??= at;
    for (const flag of before.flags) if (!known.has(flag)) known.acknowledged.delete(`${flag},`);
    if (!known.has("hand_raised")) known.handSince = null;
    if (before.quiz_attempt_id !== view.quiz_attempt_id && before.quiz_attempt_id) known.note({ at, kind: "attempt" });
    if (before.student_name !== view.student_name || before.group !== view.group) {
      known.named();
      this._names = true;
    }
    this._touch(known);
  }

  _remove(id) {
    const student = this.byId.get(id);
    this._count(student.view, -1);
    this.byId.delete(id);
    this.attention.delete(id);
    this.changed = true;
  }

  _count(view, by) {
    if (view.flags.includes("hand_raised")) this.raised[by > 0 ? "add" : "delete"](view.student_id);
    this.counts[view.label] = (this.counts[view.label] ?? 0) + by;
    if (view.lifecycle !== "in_progress" && view.lifecycle !== "paused") return;
    this.running += by;
    if (view.presence === "connected") this.connected += by;
  }

  _touch(student) {
    this.dirty.add(student);
    this.changed = true;
  }

  _learnIncidents(incidents) {
    for (const incident of incidents) {
      const same = each => each.kind === incident.kind && each.started_at === incident.started_at;
      this.incidents = [...this.incidents.filter(each => !same(each)), incident];
    }
  }

  // --- what follows ---

  /** Places by name, worked out again only when a name changed. */
  ranks() {
    if (!this._names) return;
    this._names = false;
    const collator = new Intl.Collator(undefined, { numeric: true });
    [...this.byId.values()].sort((a, b) => collator.compare(a.name, b.name)).forEach((student, n) => (student.rank = n));
  }

  /** Bring the list of who needs attention up to date; the newcomers. Who recovered stays for a moment, so that nothing jumps. */
  attend(now) {
    const news = [];
    for (const student of this.byId.values()) {
      const entry = this.attention.get(student.id);
      if (!entry && student.view.flags.length === 0 && student.label !== "offline" && student.label !== "away") continue;
      const reasons = student.reasons(now).filter(reason => !student.acknowledged.has(String(reason)));
      if (reasons.length) {
        if (!entry) {
          this.attention.set(student.id, { student, since: now, ended: null, reasons });
          news.push([student, reasons]);
        } else {
          if (String(entry.reasons) !== String(reasons)) {
            const fresh = reasons.filter(([what]) => !entry.reasons.some(([known]) => known === what));
            if (fresh.length) news.push([student, fresh]);
          }
          entry.reasons = reasons;
          entry.ended = null;
        }
      } else if (entry) {
        entry.ended ??= now;
        if (now - entry.ended >= SETTLE_SECONDS) this.attention.delete(student.id);
      }
    }
    return news;
  }

  /** Somebody has seen to these students: their present reasons count no more. */
  acknowledge(ids, now) {
    for (const id of ids) {
      const student = this.byId.get(id);
      if (!student) continue;
      for (const reason of student.reasons(now)) student.acknowledged.add(String(reason));
      this.attention.delete(id);
      this._touch(student);
    }
  }
}

/** What brought a change of label about, as far as two views tell. */
function cause(before, after) {
  if (after.label === "offline") return after.presence === "left" ? "left" : "silence";
  if (after.label === "reconnecting") return "silence";
  if (after.label === "away") return "reported_away";
  if (after.label === "active") {
    if (before.label === "not_joined") return "joined";
    if (before.label === "paused") return "proctor";
    return before.label === "away" ? "reported_back" : "heard_again";
  }
  if (after.label === "paused" || after.label === "terminated") return "proctor";
  return after.label === "submitted" ? "reported_submitted" : "time_over";
}
