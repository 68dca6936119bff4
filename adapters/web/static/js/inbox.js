// Beside the table: raised hands in the order they went up, what students wrote, and how far commands have come.

import { $, button, h, setText } from "./dom.js";
import { Commands, PICTURES } from "./commands.js";
import { count, duration, time } from "./format.js";
import { t } from "./i18n.js";
import { mark } from "./marks.js";

const TABS = ["hands", "messages", "commands"];
const MOST = 100;

export class Inbox {
  /** `onEarlier()` when somebody asks for messages from before those that are here. */
  constructor({ students, commands, onOpen, onReply, onEarlier }) {
    Object.assign(this, { students, commands, onOpen, onReply, onEarlier });
    this.hasEarlier = false;
    this.shown = MOST;
    this.problem = "";
    this.messages = [];
    this.unread = 0;
    this.open = "hands";
    this.dirty = true;
    this.expanded = new Set();
    for (const tab of TABS) {
      $(`tab-${tab}`).addEventListener("click", () => {
        // on a phone the tabs are all that is seen, until one is pressed
        $("inbox").classList.toggle("open", this.open !== tab || !$("inbox").classList.contains("open"));
        this.show(tab);
      });
      $(`tab-${tab}`).addEventListener("keydown", event => {
        const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!by) return;
        this.show(TABS[(TABS.indexOf(tab) + by + TABS.length) % TABS.length]);
        $(`tab-${this.open}`).focus();
      });
    }
    this.show("hands");
  }

  show(tab) {
    this.open = tab;
    if (tab === "messages") this.unread = 0;
    for (const each of TABS) {
      const chosen = each === tab;
      $(`tab-${each}`).setAttribute("aria-selected", chosen);
      $(`tab-${each}`).tabIndex = chosen ? 0 : -1;
      $(`panel-${each}`).hidden = !chosen;
    }
    this.dirty = true;
  }

  /** A student wrote. */
  take(message) {
    if (message.kind !== "chat") return;
    this.messages.unshift(message);
    if (this.open !== "messages") this.unread += 1;
    this.dirty = true;
  }

  /** Messages from before this page was opened, newest first; `hasEarlier`: there are more. */
  recall(lines, hasEarlier) {
    this.hasEarlier = hasEarlier;
    this.problem = "";
    for (const line of lines) if (line.kind === "chat" && line.by === "student") this.messages.push(line);
    this.messages.sort((a, b) => b.at - a.at);
    this.shown = Math.max(MOST, this.messages.length);
    this.dirty = true;
  }

  /** Why there are none from before. */
  failed(problem) {
    this.problem = problem;
    this.dirty = true;
  }

  hands() {
    // in the order in which they went up
    const up = Array.from(this.students.raised, id => this.students.byId.get(id));
    return up.sort((a, b) => (a.handSince ?? 0) - (b.handSince ?? 0) || a.rank - b.rank);
  }

  paint(now, tick) {
    const badge = (id, n) => {
      $(id).hidden = !n;
      setText($(id), count(n));
    };
    badge("count-hands", this.students.raised.size);
    badge("count-messages", this.unread);
    if (!this.dirty && !tick) return;
    // what somebody is about to press is not replaced under their finger
    const panel = $(`panel-${this.open}`);
    if (!this.dirty && panel.contains(document.activeElement)) return;
    this.dirty = false;
    if (this.open === "hands") this._hands(this.hands(), now);
    else if (this.open === "messages") this._messages();
    else this._commands();
  }

  _fill(name, items, empty) {
    $(`panel-${name}`).replaceChildren(items.length ? h("ol", { class: "cards" }, items) : h("p", { class: "empty" }, t(empty)));
  }

  _name(student, id) {
    return h("button", { type: "button", class: "name", onclick: () => student && this.onOpen(student) }, student?.name ?? id);
  }

  _hands(hands, now) {
    this._fill("hands", hands.slice(0, MOST).map(student => {
      const said = student.messages.filter(message => message.kind === "raise_hand" && message.text).at(-1);
      return h("li", { class: "card" },
        h("div", { class: "card-head" }, mark("hand"), this._name(student),
          h("span", { class: "since number" }, student.handSince ? t("waiting_for", { d: duration(now - student.handSince) }) : "")),
        said && h("p", {}, said.text),
        h("div", { class: "card-acts" },
          button("message", t("reply"), { class: "small", onclick: () => this.onReply(student) }),
          button("check", t("lower"), { class: "small", onclick: () => this.commands.acknowledge([student.id]) })));
    }), "no_hands");
  }

  _messages() {
    this._fill("messages", this.messages.slice(0, this.shown).map(message => {
      const student = this.students.byId.get(message.student_id);
      const answer = student?.messages.find(each => each.mine && each.at >= message.at);
      return h("li", { class: "card" },
        h("div", { class: "card-head" }, mark("message"), this._name(student, message.student_id), h("time", { class: "since number" }, time(message.at))),
        h("p", {}, message.text),
        answer && h("p", { class: "by" }, `${this.commands.nameOf(answer.who)}: ${answer.text}`),
        student && h("div", { class: "card-acts" }, button("message", t("reply"), { class: "small", onclick: () => this.onReply(student) })));
    }), "no_messages");
    if (this.problem) $("panel-messages").append(h("p", { class: "problem" }, t("messages_failed", { why: this.problem })));
    if (this.hasEarlier || this.problem) $("panel-messages").append(button(null, t(this.problem ? "again" : "earlier"), { class: "small", onclick: this.onEarlier }));
  }

  _commands() {
    this._fill("commands", this.commands.list().map(entry => {
      const counts = Commands.counts(entry);
      const total = entry.outcomes.size;
      const one = total === 1 ? this.students.byId.get(entry.outcomes.keys().next().value) : null;
      const bar = h("span", { class: "outcomes" });
      for (const [outcome, n] of counts) {
        const part = h("i", { class: outcome });
        part.style.flexGrow = n;
        bar.append(part);
      }
      const to = entry.everyone ? t("to_all") : one ? one.name : t("to_some", { n: count(total) });
      const details = h("details", { open: this.expanded.has(entry.command_id) },
        h("summary", {}, counts.map(([outcome, n]) => `${count(n)} ${t(outcome === "refused" ? "refused_short" : outcome)}`).join(" · ") || t("pending")),
        h("ul", { class: "who" }, [...entry.outcomes].slice(0, MOST).map(([id, outcome]) =>
          h("li", {}, this.students.byId.get(id)?.name ?? id, h("span", { class: "why" },
            t(outcome === "refused" ? "refused_short" : outcome) + (entry.why?.get(id) ? `: ${entry.why.get(id)}` : ""))))));
      details.addEventListener("toggle", () => (details.open ? this.expanded.add(entry.command_id) : this.expanded.delete(entry.command_id)));
      return h("li", { class: "card" },
        h("div", { class: "card-head" }, mark(PICTURES[entry.command]), h("b", {}, t(entry.command)), h("span", { class: "to" }, to),
          h("time", { class: "since number" }, time(entry.at))),
        entry.text && h("p", {}, entry.text),
        entry.problem && h("p", { class: "problem" }, entry.problem),
        bar, details,
        h("p", { class: "by" }, entry.mine ? t("by_you") : entry.who || t("by_other")));
    }), "no_commands");
  }
}
