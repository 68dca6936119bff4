// Telling students something: who may get it and who not before it is sent, how far it came after.
//
// The id of a command says what it is and who gave it (`warn.proctor.random`), so that the other proctors' dashboards can name it,
// and so that one acknowledgement counts for all of them.

import { $, button, h, setText } from "./dom.js";
import { count, duration } from "./format.js";
import { t } from "./i18n.js";
import { mark } from "./marks.js";
import { wholeId } from "./students.js";

export const COMMANDS = ["message", "warn", "update", "pause", "resume", "flag", "terminate"];
export const PICTURES = { message: "message", warn: "warn", update: "clock", pause: "pause", resume: "resume", flag: "flag", terminate: "stop" };
export const REASONS = ["environment", "technical", "examinee", "identity", "rules", "incident", "other"];
const WITH_REASON = new Set(["pause", "update", "terminate", "flag"]);
const MUST_HAVE_REASON = new Set(["terminate", "flag"]);
const WITH_TEXT = new Set(["message", "warn"]);
const EXPIRES_SECONDS = 300;
const CONFIRM_FROM = 10; // so many attempts are not ended by one click
const MOST_NAMES = 6;
const OUTCOMES = ["confirmed", "delivered", "sent", "accepted", "pending", "refused", "expired"];
const MOST_SHOWN = 50;

/** Why a student would refuse this command; empty if they would not. The service decides; this is its rule, shown in advance. */
export function refusal(command, student) {
  const { lifecycle, time_end } = student.view;
  const over = lifecycle === "submitted" || lifecycle === "timed_out" || lifecycle === "terminated";
  if (command === "pause" || command === "resume") {
    if (over || lifecycle === "not_joined") return lifecycle;
    return "";
  }
  if (command === "terminate") return lifecycle === "submitted" ? lifecycle : "";
  if (command === "update") {
    if (over || lifecycle === "not_joined") return lifecycle;
    return time_end ? "" : "no_end";
  }
  return "";
}

export class Commands {
  constructor({ link, students, who, onChange }) {
    Object.assign(this, { link, students, who, onChange });
    this.log = new Map(); // id -> what is known of a command, newest last
    this.dialog = $("composer");
    this.form = $("composer-form");
    this.form.addEventListener("submit", event => {
      event.preventDefault();
      this._submit();
    });
    this.form.addEventListener("input", () => this._preview());
    $("composer-cancel").addEventListener("click", () => this.dialog.close());
    const words = $("composer-text");
    words.addEventListener("keydown", event => (event.ctrlKey || event.metaKey) && event.key === "Enter" && this.form.requestSubmit());
  }

  /** Who did something, in words: this proctor, another one, the school's own software. */
  nameOf(actor) {
    if (!actor) return "";
    return actor === this.who ? t("by_you") : actor === "api" ? t("by_school") : actor;
  }

  newId(command) {
    const who = this.who.replace(/[^\w@-]/g, "_").slice(0, 40);
    return `${command}.${who}.${Array.from(crypto.getRandomValues(new Uint32Array(3)), n => n.toString(36)).join("")}`;
  }

  /** Send a command without asking. */
  send(command, ids, more = {}) {
    const command_id = this.newId(command);
    const outcomes = new Map(ids === "everyone" ? [] : ids.map(id => [id, "pending"]));
    const entry = { command_id, command, at: this.link.now(), mine: true, who: this.who, everyone: ids === "everyone", outcomes, ...more };
    this.log.set(command_id, entry);
    this.link.order({
      command_id,
      command,
      ...(ids === "everyone" ? { everyone: true } : { student_ids: ids }),
      expires_seconds: EXPIRES_SECONDS,
      ...more,
    });
    for (const id of ids === "everyone" ? [] : ids) {
      const student = this.students.byId.get(id);
      student?.note({ at: entry.at, kind: "command", what: command, text: [more.reason_code, more.extra_minutes && `${more.extra_minutes} min`, more.text].filter(Boolean).join(" "), who: this.who, reference: command_id });
      if (command === "message" || command === "warn") student?.hear({ at: entry.at, mine: true, who: this.who, text: more.text, message_id: command_id, kind: "chat" });
    }
    this._trim();
    this.onChange();
    return command_id;
  }

  acknowledge(ids) {
    this.send("acknowledge", ids);
    this.students.acknowledge(ids, this.link.now());
  }

  /** How far a command has come, from whomever it is. */
  status({ command_id, students }) {
    const id = wholeId(command_id);
    let entry = this.log.get(id);
    if (!entry) {
      const [command, who] = id.split(".");
      const known = COMMANDS.includes(command) || command === "acknowledge";
      entry = { command_id: id, command: known ? command : "message", at: this.link.now(), mine: false, who: known ? who : "", everyone: false, outcomes: new Map() };
      this.log.set(id, entry);
      this._trim();
    }
    for (const [student, outcome] of Object.entries(students)) {
      const [word] = outcome.split(":");
      const before = entry.outcomes.get(student);
      if (before === "confirmed") continue;
      entry.outcomes.set(student, word);
      if (word === "refused") (entry.why ??= new Map()).set(student, outcome.slice(word.length + 2));
      const known = this.students.byId.get(student);
      if (known && word !== before && (word !== "sent" || !entry.mine)) {
        known.note({ at: this.link.now(), kind: "receipt", what: entry.command, outcome: word, who: entry.mine ? "" : entry.who, reference: id });
        this.students.dirty.add(known);
      }
    }
    if (entry.command === "acknowledge" && !entry.mine) this.students.acknowledge(Object.keys(students), this.link.now());
    this.onChange();
  }

  /** The service did not take a command at all. */
  refused({ command_id, message }) {
    const id = wholeId(command_id);
    const entry = this.log.get(id);
    if (!entry) return;
    entry.problem = message;
    for (const student of entry.outcomes.keys()) entry.outcomes.set(student, "refused");
    this.onChange();
  }

  _trim() {
    while (this.log.size > MOST_SHOWN) this.log.delete(this.log.keys().next().value);
  }

  // --- the dialog ---

  /** Ask for what a command needs. `ids` is a list, or "everyone". */
  compose(command, ids, text = "") {
    this.command = command;
    this.ids = ids;
    const one = ids !== "everyone" && ids.length === 1 ? this.students.byId.get(ids[0]) : null;
    setText($("composer-title"), t(command));
    $("composer-picture").replaceChildren(mark(PICTURES[command]));
    setText($("composer-to"), ids === "everyone" ? t("to_everyone") : one ? t("to_one", { name: one.name }) : t("to_some", { n: count(ids.length) }));
    const isText = WITH_TEXT.has(command);
    $("composer-text").value = text;
    $("composer-text-field").hidden = !isText && !WITH_REASON.has(command);
    setText($("composer-text-label"), t(isText ? "words" : "note"));
    $("composer-text").required = isText;
    setText($("composer-text-hint"), command === "warn" ? t("warn_hint") : isText ? t("words_hint") : "");
    $("composer-canned").hidden = !isText;
    $("composer-canned").replaceChildren(
      ...[1, 2, 3, 4].map(n => button(null, t(`canned_${n}`), {
        class: "canned",
        onclick: () => {
          $("composer-text").value = t(`canned_${n}`);
          this._preview();
          $("composer-text").focus();
        },
      })),
    );
    $("composer-minutes-field").hidden = command !== "update";
    $("composer-minutes").required = command === "update";
    // what a student lost to the network is what is mostly given back
    const lost = one ? Math.ceil(one.offlineSeconds(this.link.now()) / 60) : 0;
    $("composer-minutes").value = Math.min(lost, 600) || 5;
    setText($("composer-lost"), lost ? t("lost_minutes", { d: duration(one.offlineSeconds(this.link.now())) }) : "");
    $("composer-reason-field").hidden = !WITH_REASON.has(command);
    $("composer-reason").required = MUST_HAVE_REASON.has(command);
    $("composer-reason").replaceChildren(
      h("option", { value: "" }, t("reason_choose")),
      ...REASONS.map(reason => h("option", { value: reason }, t(`r_${reason}`))),
    );
    const word = (this.word = ids === "everyone" || (command === "terminate" && ids.length >= CONFIRM_FROM) ? t(command).toUpperCase() : "");
    $("composer-confirm-field").hidden = !word;
    $("composer-confirm").value = "";
    setText($("composer-confirm-label"), t("type_to_confirm", { word }));
    $("composer-send").className = `button primary ${command === "terminate" ? "danger" : ""}`;
    this._preview();
    this.dialog.showModal();
    (isText ? $("composer-text") : command === "update" ? $("composer-minutes") : WITH_REASON.has(command) ? $("composer-reason") : $("composer-send")).focus();
  }

  _targets() {
    if (this.ids === "everyone") return [...this.students.byId.values()];
    return this.ids.map(id => this.students.byId.get(id)).filter(Boolean);
  }

  _preview() {
    const allowed = [], refused = new Map();
    for (const student of this._targets()) {
      const why = refusal(this.command, student);
      if (!why) allowed.push(student);
      else if (refused.has(why)) refused.get(why).push(student);
      else refused.set(why, [student]);
    }
    const toPage = this.command !== "flag";
    const waiting = toPage ? allowed.filter(student => student.view.presence !== "connected").length : 0;
    const lines = [h("li", { class: "allowed" }, mark("check"), t("allowed", { n: count(allowed.length) }))];
    if (waiting) lines.push(h("li", {}, mark("clock"), t("waiting_too", { n: count(waiting), d: duration(EXPIRES_SECONDS) })));
    for (const [why, who] of refused) {
      const names = who.slice(0, MOST_NAMES).map(student => student.name).join(", ") + (who.length > MOST_NAMES ? ", …" : "");
      lines.push(h("li", { class: "refused" }, mark("offline"), `${t("refused", { n: count(who.length) })}: ${t(`refused_${why}`)} (${names})`));
    }
    if (this.link.isStale) lines.push(h("li", { class: "refused" }, mark("reconnecting"), t("cannot_send")));
    $("composer-preview").replaceChildren(...lines);
    const confirmed = !this.word || $("composer-confirm").value.trim().toUpperCase() === this.word;
    $("composer-send").disabled = !confirmed || (!allowed.length && this.ids !== "everyone");
    this.allowed = allowed;
  }

  _submit() {
    this._preview();
    if ($("composer-send").disabled || !this.form.reportValidity()) return;
    const text = $("composer-text-field").hidden ? "" : $("composer-text").value.trim();
    if (WITH_TEXT.has(this.command) && !text) return;
    const reason = WITH_REASON.has(this.command) ? $("composer-reason").value : "";
    this.send(this.command, this.ids === "everyone" ? "everyone" : this.allowed.map(student => student.id), {
      ...(text && { text }),
      ...(reason && { reason_code: reason }),
      ...(this.command === "update" && { extra_minutes: Number($("composer-minutes").value) }),
    });
    this.dialog.close();
  }

  // --- the list of what was sent ---

  /** How many students are at each outcome. */
  static counts(entry) {
    const counts = new Map();
    for (const outcome of entry.outcomes.values()) counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
    return OUTCOMES.filter(outcome => counts.has(outcome)).map(outcome => [outcome, counts.get(outcome)]);
  }

  list() {
    return [...this.log.values()].filter(entry => entry.command !== "acknowledge").reverse();
  }
}
