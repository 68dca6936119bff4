// One student: what is known now, what adds to the risk score, the conversation, and everything that happened to them.

import { $, button, h, setText } from "./dom.js";
import { COMMANDS, PICTURES, REASONS, refusal } from "./commands.js";
import { save } from "./csv.js";
import { clock, count, duration, time } from "./format.js";
import { Story } from "./history.js";
import { t } from "./i18n.js";
import { mark } from "./marks.js";

export class Drawer {
  /** `archive` is where the past is read; `onChange()` when more of it has come. */
  constructor({ commands, grid, now, openedAt, archive, fileName, onChange, onClose }) {
    Object.assign(this, { commands, grid, now, openedAt, archive, fileName, onChange, onClose });
    this.student = null;
    this.panel = $("drawer");
    this.story = null;
    this.shownScore = null;
    $("drawer-close").addEventListener("click", () => this.close());
    $("drawer-previous").addEventListener("click", () => this._step(-1));
    $("drawer-next").addEventListener("click", () => this._step(1));
    $("drawer-export").addEventListener("click", () => this._export());
    $("drawer-again").addEventListener("click", () => this.story?.open());
    $("drawer-earlier").addEventListener("click", () => this.story?.more());
    $("drawer-reply").addEventListener("submit", event => {
      event.preventDefault();
      const text = $("drawer-words").value.trim();
      if (!text || !this.student) return;
      $("drawer-words").value = "";
      this.commands.send("message", [this.student.id], { text });
      this.paint(true);
    });
    this.panel.addEventListener("keydown", event => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.close();
    });
  }

  get isOpen() {
    return this.student !== null;
  }

  open(student, focus = true) {
    if (!this.isOpen) this.opener = document.activeElement;
    this.story?.close();
    this.student = student;
    this.story = student.story ??= new Story({ archive: this.archive, student, onChange: this.onChange });
    this.story.open();
    this.shownScore = null;
    this.panel.hidden = false;
    document.body.classList.add("with-drawer");
    this.paint(true);
    if (focus) $("drawer-title").focus({ preventScroll: true });
  }

  close() {
    if (!this.isOpen) return;
    this.story.close();
    this.student = this.story = null;
    this.panel.hidden = true;
    document.body.classList.remove("with-drawer");
    this.onClose();
    (this.opener?.isConnected ? this.opener : this.grid.scroller).focus({ preventScroll: true });
  }

  _step(by) {
    const { rows } = this.grid.query;
    const at = rows.indexOf(this.student) + by;
    if (!rows[at]) return;
    this.grid.activate(at);
    this.open(rows[at], false);
  }

  /** Paint what ticks; with `all`, also the lists. */
  paint(all) {
    const { student } = this;
    if (!student) return;
    const now = this.now(), { view } = student;
    setText($("drawer-title"), student.name);
    this.panel.setAttribute("aria-label", t("details", { name: student.name }));
    setText($("drawer-under"), [student.id, view.group].filter(Boolean).join(" · "));
    const since = student.labelSince();
    const status = $("drawer-status");
    if (all) {
      status.dataset.label = view.label;
      status.replaceChildren(mark(view.label), h("b", {}, t(view.label)), h("span", { id: "drawer-since", class: "number" }));
    }
    setText($("drawer-since"), since === null ? "" : t("for", { d: duration(now - since) }));
    this._facts(now, all);
    if (!all) return;
    $("drawer-acts").replaceChildren(...COMMANDS.map(command => {
      const why = refusal(command, student) || (command === "resume" && view.lifecycle !== "paused" && "in_progress") || (command === "pause" && view.lifecycle === "paused" && "paused");
      return button(PICTURES[command], t(command), {
        class: command === "terminate" ? "danger small" : "small",
        disabled: Boolean(why),
        title: why ? t(`refused_${why}`) : undefined,
        onclick: () => this.commands.compose(command, [student.id]),
      });
    }));
    this._risk(now);
    this._talk();
    this._timeline();
    this.story.watch();
  }

  _facts(now, all) {
    const { student } = this, { view } = student;
    const left = student.secondsLeft(now);
    const at = instant => (instant ? time(instant) : "–");
    const facts = [
      ["col_question", view.question_number_current || "–"],
      ["col_progress", view.question_total ? t("answered_of", { n: view.question_answered, of: view.question_total }) : "–"],
      ["col_left", left === null ? "–" : left > 0 ? clock(left) : t("over")],
      ["col_away", view.away_count ? t("away_times", { n: view.away_count, d: duration(student.awaySeconds(now)) }) : t("none")],
      ["offline_total", student.offlineSeconds(now) >= 1 ? duration(student.offlineSeconds(now)) : t("none")],
      ["reconnects", String(view.reconnects)],
      ["connection", t(view.presence)],
      ["attention_axis", view.attention === "away" ? t("away") : t(view.attention)],
      ["pages_open", student.has("several_pages") ? t("several") : view.presence === "connected" ? t("one") : "–"],
      ["started", at(view.time_start)],
      ["ends", at(view.time_end)],
      ["attempt", view.quiz_attempt_id || "–"],
    ];
    const list = $("drawer-facts");
    if (all || list.childElementCount !== facts.length + 1) {
      list.replaceChildren(...facts.map(([key, value]) => h("div", {}, h("dt", {}, t(key)), h("dd", { class: "number" }, String(value)))));
      list.append(h("div", {}, h("dt", {}, t("col_score")), h("dd", { class: "number" }, this._score())));
    } else facts.forEach(([, value], n) => setText(list.children[n].lastChild, String(value)));
  }

  _score() {
    const { student } = this, { score } = student.view;
    if (score === null) return "–";
    if (this.grid.showScores || this.shownScore === student) return `${count(score)} (${t("reported")})`;
    return h("button", { type: "button", class: "link", onclick: () => {
      this.shownScore = student;
      this.paint(true);
    } }, t("show_score"));
  }

  _risk(now) {
    const parts = this.student.riskParts(now);
    const total = parts.reduce((sum, [, points]) => sum + points, 0);
    setText($("drawer-risk-total"), String(total));
    $("drawer-risk").replaceChildren(...(parts.length ? parts.map(([what, points]) => {
      const fill = h("i");
      fill.style.width = `${Math.min(100, points)}%`;
      const name = ["away_count", "away_time", "offline_time"].includes(what) ? t(`risk_${what}`) : t(what);
      return h("li", {}, h("span", {}, name), h("span", { class: "bar risk" }, fill), h("span", { class: "number" }, `+${points}`));
    }) : [h("li", { class: "empty" }, t("risk_none"))]));
  }

  _talk() {
    const { messages } = this.student;
    $("drawer-talk").replaceChildren(...messages.map(message => {
      const text = message.text || t({ raise_hand: "raised_hand", lower_hand: "lowered_hand" }[message.kind] ?? "message");
      const who = message.mine ? this.commands.nameOf(message.who) : "";
      return h("li", { class: message.mine ? "mine" : message.kind === "chat" ? "" : "sign" }, text, h("time", { class: "number" }, [who, time(message.at)].filter(Boolean).join(" · ")));
    }));
  }

  /** Newest first: each with what it means and how long it lasted. */
  _timeline() {
    const { story } = this;
    const failed = story.state === "failed";
    setText($("drawer-timeline-note"), failed ? t("timeline_failed", { why: story.problem, time: time(this.openedAt) }) : t(story.state === "loading" ? "timeline_loading" : "timeline_note"));
    $("drawer-timeline-note").classList.toggle("problem", failed);
    $("drawer-again").hidden = !failed;
    $("drawer-earlier").hidden = failed || !story.next;
    const events = story.events();
    const none = story.state === "ready" ? [h("li", { class: "empty" }, t("timeline_empty"))] : [];
    $("drawer-timeline").replaceChildren(...(events.length ? events.map(event => {
      const { picture, title, detail } = words(event);
      const why = [detail, event.kind === "label" ? "" : this.commands.nameOf(event.who)].filter(Boolean).join(" · ");
      return h("li", { "data-label": event.kind === "label" ? event.after : null },
        mark(picture),
        h("div", {}, h("b", {}, title), why && h("span", { class: "why" }, why)),
        h("span", { class: "since number" }, time(event.at), event.seconds != null && h("em", {}, duration(event.seconds))));
    }) : none));
  }

  /** The whole timeline as the service keeps it. */
  async _export() {
    const { student } = this;
    $("drawer-export").disabled = true;
    try {
      save(`${this.fileName}-${student.id.replace(/[^\w-]/g, "_")}-timeline.csv`, await this.archive.file("timeline.csv", student.id));
    } catch (error) {
      setText($("drawer-timeline-note"), t("export_failed", { why: error.message }));
    }
    $("drawer-export").disabled = false;
  }
}

/** What goes with a command; a reason's code comes first, if there is one. */
function inWords(text) {
  const [first, ...rest] = text.split(" ");
  return REASONS.includes(first) ? [t(`r_${first}`), rest.join(" ")].filter(Boolean).join(" · ") : text;
}

/** An event in words. */
function words(event) {
  switch (event.kind) {
    case "label":
      return { picture: event.after, title: t(event.after), detail: t(`cause_${event.cause}`) };
    case "flag":
      return { picture: { hand_raised: "hand", several_pages: "pages", flagged: "flag" }[event.what] ?? "warn", title: t(event.what) };
    case "message":
      return { picture: event.what === "chat" ? "message" : "hand", title: t({ chat: "message", raise_hand: "raised_hand", lower_hand: "lowered_hand" }[event.what]), detail: event.text };
    case "command":
      return {
        picture: PICTURES[event.what] ?? "check",
        title: event.outcome === "refused" ? `${t(event.what)}: ${t("refused_short")}` : t(event.what),
        detail: [inWords(event.text), event.everyone && t("to_all")].filter(Boolean).join(" · "),
      };
    case "receipt":
      return { picture: PICTURES[event.what] ?? "check", title: `${t(event.what)}: ${t(event.outcome === "refused" ? "refused_short" : event.outcome)}` };
    case "session":
      return { picture: "pages", title: t(`event_session_${event.what}`) };
    default:
      return { picture: "not_joined", title: t("event_attempt") };
  }
}
