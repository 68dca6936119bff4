// The dashboard: wires the connection, what is known, and what is shown. Everything is painted once a frame, from what changed.

import { Alerts } from "./alerts.js";
import { Attention } from "./attention.js";
import { COMMANDS, Commands, PICTURES } from "./commands.js";
import { download, save } from "./csv.js";
import { $, button, h, setAttribute, setText } from "./dom.js";
import { Drawer } from "./drawer.js";
import { count, decimal, time } from "./format.js";
import { Grid } from "./grid.js";
import { Archive } from "./history.js";
import { LANGUAGES, speak, t } from "./i18n.js";
import { Inbox } from "./inbox.js";
import { Link, claimsOf } from "./link.js";
import { LABELS, mark } from "./marks.js";
import { Query, SORTS } from "./query.js";
import { Students } from "./students.js";
import { Tiles } from "./tiles.js";

const ATTEND_MS = 250;
const SUMMARY_MS = 10_000;
const TOKEN_WARNING_SECONDS = 600;
const OVER_SHOWN_SECONDS = 60;
const SPARK_SECONDS = 44;
const STORE = "proctorwire:dashboard";

// --- who, where, how ---

const settings = { language: navigator.language.startsWith("id") ? "id" : "en", theme: "auto", density: "comfortable", scores: false, sound: false, desktop: false, shortcuts: true, tiles: false };
try {
  Object.assign(settings, JSON.parse(localStorage.getItem(STORE)));
} catch { /* the defaults then */ }

function keep() {
  try {
    localStorage.setItem(STORE, JSON.stringify(settings));
  } catch { /* for this page only then */ }
}

/** The token comes in the fragment and goes to the tab's storage. An address to connect to is believed only together with a token. */
function access() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.has("token")) {
    sessionStorage.setItem(STORE, JSON.stringify(Object.fromEntries(given)));
    history.replaceState(null, "", location.pathname + location.search);
  }
  try {
    return JSON.parse(sessionStorage.getItem(STORE));
  } catch {
    return null;
  }
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

function dress() {
  const theme = settings.theme === "auto" ? (dark.matches ? "dark" : "light") : settings.theme;
  document.documentElement.dataset.theme = theme;
  document.documentElement.dataset.density = settings.density;
}

speak(settings.language);
dress();
const given = access();
if (given?.token) run(given);
else {
  document.body.dataset.link = "stopped";
  $("banners").append(h("p", { class: "banner stop" }, t("no_token")));
}

function run(given) {
  const claims = claimsOf(given.token);
  const quizzes = [claims.quiz_id].flat();
  const quizId = quizzes.includes(given.quiz) ? given.quiz : quizzes[0];
  const students = new Students();
  const alerts = new Alerts(settings, student => students.attention.has(student.id));
  const openedAt = Date.now() / 1000;
  const fileName = quizId.replace(/[^\w-]/g, "_");

  let health = true, tick = true, scheduled = false, newDrawer = false, newLists = false, newNames = true;

  const link = new Link({
    url: given.url ?? claims.url ?? `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`,
    token: given.token,
    quizId,
    groups: given.groups ? given.groups.split(",") : [],
    onFrame: receive,
    onChange: () => schedule((tick = health = true)),
  });
  const now = () => link.now();

  const commands = new Commands({ link, students, who: claims.sub, onChange: () => schedule((newLists = newDrawer = true)) });
  const query = new Query(students, () => schedule((newNames = true)));
  const open = student => drawer.open(student);
  const grid = new Grid({
    scroller: $("grid"),
    query,
    onOpen: open,
    onSelect: () => {
      showSelection();
      schedule();
    },
    onSort: sort => query.set(sort === query.sort ? { reversed: !query.reversed } : { sort, reversed: false }),
  });
  const tiles = new Tiles({ scroller: $("tiles"), canvas: $("tile-map"), tip: $("tip"), say: $("say"), query, onOpen: open });
  const attention = new Attention({
    section: $("attention"), list: $("attention-list"), title: $("attention-count"), empty: $("attention-empty"), more: $("attention-more"),
    students,
    onOpen: open,
    onMessage: student => commands.compose("message", [student.id]),
    onAcknowledge: student => commands.acknowledge([student.id]),
    onAll: () => query.set({ attentionOnly: true }),
  });
  const inbox = new Inbox({ students, commands, onOpen: open, onReply: student => commands.compose("message", [student.id]), onEarlier: recall });
  const archive = new Archive({ quizId, token: () => link.token });
  const drawer = new Drawer({ commands, grid, now, openedAt, archive, fileName, onChange: () => schedule((newDrawer = true)), onClose: () => schedule() });

  /** What was said before this page was opened, a page at a time. While nobody is in the exam, nothing was. */
  let recalled = false, cursor;

  async function recall() {
    recalled = true;
    try {
      const page = await archive.page("conversation", { cursor });
      cursor = page.next_cursor ?? undefined;
      inbox.recall(students.recall(page.lines).map(line => ({ ...line, message_id: line.reference })), cursor !== undefined);
    } catch (error) {
      inbox.failed(error.message);
    }
    attend();
    attention.unsorted = true;
    schedule((newLists = newDrawer = true));
  }

  // --- frames in ---

  function receive(action, data) {
    if (action === "lmsQuizMonitoringSnapshot") {
      students.snapshot(data);
      if (!recalled && students.complete && students.size) recall();
      newNames = true;
    } else if (action === "lmsQuizMonitoringUpdate") {
      students.update(data);
      tick ||= data.incidents.length > 0;
    } else if (action === "lmsQuizMonitoringMessage") {
      const message = students.message(data);
      if (message) inbox.take(message);
      newDrawer = true;
    } else if (action === "lmsQuizCommandStatus") {
      commands.status(data);
    } else if (action === "refused") commands.refused(data);
    if (performance.now() - attendedAt > ATTEND_MS) attend();
    schedule();
  }

  // Attention and alerts follow frames and a clock, not painting: a hidden tab does not paint, and its clock is slow.
  let attendedAt = 0;

  function attend() {
    attendedAt = performance.now();
    if (link.isStale || !students.complete) return;
    const news = students.attend(now());
    newLists ||= news.length > 0;
    alerts.raise(news);
  }

  function schedule() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(paint);
  }

  setInterval(() => {
    attend();
    tick = health = true;
    spark.push(students.updates - spark.seen);
    spark.seen = students.updates;
    if (spark.length > SPARK_SECONDS) spark.shift();
    schedule();
  }, 1_000);

  // --- painting ---

  const spark = Object.assign(Array(SPARK_SECONDS).fill(0), { seen: 0 });

  function paint(at) {
    scheduled = false;
    const dirty = students.dirty, seconds = now();
    students.dirty = new Set();
    const reordered = query.refresh(at, seconds, grid.selection.size > 0);
    if (newNames) {
      showGroups();
      showTools();
      grid.moved = true; // the heads say by what it is sorted, even where no row moved
    }
    if (settings.tiles) tiles.paint(dirty, reordered, seconds);
    else grid.paint(dirty, reordered, tick, seconds);
    if (tick || dirty.size || reordered || newNames) {
      showStrip();
      setText($("act-on").lastChild, t("act_on", { n: count(query.rows.length) }));
      const shown = t("shown", { n: count(query.rows.length), of: count(students.size) });
      setText($("shown"), query.attentionOnly ? `${shown} · ${t("shown_attention")}` : shown);
    }
    if (tick || reordered) showNothing();
    if (tick || newLists) attention.paint(seconds);
    if (newLists || dirty.size) inbox.dirty ||= newLists;
    inbox.paint(seconds, tick);
    if (drawer.isOpen && (tick || newDrawer || dirty.has(drawer.student))) drawer.paint(newDrawer || dirty.has(drawer.student));
    if (health) showHealth();
    if (tick) {
      showBanners();
      summarise(at);
      showTitle();
    }
    health = tick = newDrawer = newLists = newNames = false;
  }

  function showHealth() {
    const stale = link.isStale;
    const state = link.state === "live" && stale ? "late" : link.state;
    document.body.dataset.link = state;
    setText($("health-state"), link.isLive ? (students.complete ? t("live") : t("loading")) : link.state === "connecting" ? t("connecting") : t("not_live"));
    setText($("health-behind"), link.isLive ? t("behind", { s: decimal(link.behind()) }) : link.lostAt ? t("as_of", { time: time(link.lostAt) }) : "");
    setText($("health-reporting"), students.running ? t("reporting", { n: count(students.connected), of: count(students.running) }) : students.complete ? t("nobody") : "");
    drawSpark();
  }

  function drawSpark() {
    const canvas = $("spark"), context = canvas.getContext("2d");
    const { width, height } = canvas, most = Math.max(4, ...spark);
    context.clearRect(0, 0, width, height);
    context.fillStyle = getComputedStyle(canvas).color;
    spark.forEach((n, x) => {
      const tall = Math.max(2, (n / most) * (height - 4));
      context.fillRect(width - (spark.length - x) * 4, height - tall, 3, tall);
    });
  }

  const chips = new Map();

  function buildStrip() {
    chips.clear();
    const bar = h("div", { class: "proportions", "aria-hidden": "true" });
    const row = h("div", { class: "chips" });
    for (const label of [null, ...["active", "away", "reconnecting", "offline", "paused", "not_joined", "submitted", "timed_out", "terminated"]]) {
      const number = h("b", { class: "number" }), part = label && h("i", { "data-label": label });
      const chip = h("button", { type: "button", class: "chip-filter", "data-label": label, onclick: event => filter(label, event) }, label && mark(label), number, h("span", {}, t(label ?? "all")));
      row.append(chip);
      if (part) bar.append(part);
      chips.set(label, { chip, number, part });
    }
    $("strip").replaceChildren(row, bar);
  }

  /** A press chooses one status, or drops it; with Shift or Ctrl it is added to those chosen. */
  function filter(label, event) {
    if (label === null) {
      query.set({ labels: new Set(), attentionOnly: false });
      return;
    }
    const several = event.shiftKey || event.ctrlKey || event.metaKey;
    const labels = new Set(several ? query.labels : query.labels.size === 1 && query.labels.has(label) ? [label] : []);
    if (labels.has(label)) labels.delete(label);
    else labels.add(label);
    query.set({ labels });
  }

  function showStrip() {
    for (const [label, { chip, number, part }] of chips) {
      const n = label ? students.counts[label] : students.size;
      setText(number, count(n));
      setAttribute(chip, "aria-pressed", label ? query.labels.has(label) : !query.labels.size && !query.attentionOnly);
      chip.hidden = Boolean(label) && n === 0 && !query.labels.has(label) && (label === "timed_out" || label === "terminated" || label === "paused");
      if (part && part.share !== n) part.style.flexGrow = part.share = n;
    }
  }

  function showGroups() {
    const groups = students.groups();
    $("group-field").hidden = groups.length < 2;
    const text = groups.join("\n");
    if (showGroups.text === text && $("group").value === query.group) return;
    showGroups.text = text;
    $("group").replaceChildren(h("option", { value: "" }, t("all_groups")), ...groups.map(group => h("option", { value: group }, group)));
    $("group").value = query.group;
  }

  function showTools() {
    $("search").value = query.text;
    $("sort").value = query.sort;
    setAttribute($("hold"), "aria-pressed", query.held);
    $("hold").replaceChildren(mark("pause"), h("span", { class: "wide-only" }, t(query.held ? "frozen" : "freeze")));
    $("hold").title = t("freeze_hint");
    showStrip();
  }

  function showNothing() {
    const empty = students.complete && query.rows.length === 0;
    $("nothing").hidden = !empty;
    $("grid").classList.toggle("is-empty", empty);
    if (!empty) return;
    const text = students.size ? t("no_match") : t("empty_exam");
    if ($("nothing").firstChild?.textContent === text) return;
    $("nothing").replaceChildren(h("p", {}, text), students.size ? button(null, t("clear_filter"), { onclick: () => query.clear() }) : "");
  }

  const dismissed = new Set();

  function showBanners() {
    const lines = [];
    if (link.state === "stopped") {
      const [reason, code] = link.reason.split(" ");
      lines.push(["stop", t(`stopped_${reason}`, { code })]);
    } else if (!link.isLive && link.lostAt !== null) {
      lines.push(["stale", `${t("reconnect_in", { time: time(link.lostAt), n: link.attempt })} ${t("stale_note")}`]);
    } else if (!link.isLive && link.attempt > 1) lines.push(["stale", t("reconnect_first")]);
    const left = link.claims.exp - now();
    if (link.state !== "stopped" && left < TOKEN_WARNING_SECONDS) lines.push(["stale", t("token_ends", { n: Math.max(0, Math.round(left / 60)) })]);
    for (const incident of students.incidents) {
      const key = `${incident.kind} ${incident.started_at}`;
      const over = incident.ended_at != null;
      if ((over && now() - incident.ended_at > OVER_SHOWN_SECONDS) || dismissed.has(`${key} ${over}`)) continue;
      const text = t(`incident_${incident.kind}`, { n: count(incident.count), time: time(incident.started_at) });
      lines.push([over ? "over" : "incident", over ? t("incident_over", { time: time(incident.ended_at), text }) : text, `${key} ${over}`]);
    }
    const shown = JSON.stringify(lines);
    if (showBanners.shown === shown) return;
    showBanners.shown = shown;
    $("banners").replaceChildren(...lines.map(([kind, text, key]) =>
      h("p", { class: `banner ${kind}` }, mark(kind === "over" ? "check" : kind === "stop" ? "offline" : "warn"), h("span", {}, text),
        key && button("close", null, { class: "quiet icon small", label: t("dismiss"), onclick: () => {
          dismissed.add(key);
          showBanners();
        } }))));
  }

  /** One line for screen readers, when it changed and not more often than every ten seconds. */
  function summarise(at) {
    if (summarise.at && at - summarise.at < SUMMARY_MS) return;
    if (!students.complete) return;
    const text = link.isStale ? t("not_live") : t("summary", {
      offline: count(students.counts.offline), away: count(students.counts.away), hands: count(students.raised.size),
      n: count(students.connected), of: count(students.running),
    });
    if ($("summary").textContent === text) return;
    summarise.at = at;
    $("summary").textContent = text;
  }

  function showTitle() {
    const n = students.attention.size;
    const text = `${n ? `(${n}) ` : ""}${link.isStale ? "⚠ " : ""}${quizId} · ${t("title")}`;
    if (document.title !== text) document.title = text;
  }

  // --- acting ---

  function shownIds() {
    return query.rows.map(student => student.id);
  }

  function chosenIds() {
    const ids = [...grid.selection].filter(id => students.byId.has(id));
    if (ids.length) return ids;
    const student = drawer.student ?? grid.activeStudent;
    return student ? [student.id] : [];
  }

  function act(command, ids) {
    if (ids === "everyone" || ids.length) commands.compose(command, ids);
  }

  function buttons(ids, close) {
    return COMMANDS.map(command => button(PICTURES[command], t(command), {
      class: command === "terminate" ? "danger" : "",
      onclick: () => {
        close?.();
        act(command, ids());
      },
    }));
  }

  /** Which exam; a choice if the token is for several. */
  function showExam() {
    if (quizzes.length === 1) {
      setText($("exam"), quizId);
      return;
    }
    const choose = event => {
      sessionStorage.setItem(STORE, JSON.stringify({ ...given, quiz: event.target.value }));
      location.assign(location.pathname);
    };
    $("exam").replaceChildren(h("select", { class: "exams", "aria-label": t("exam"), onchange: choose },
      quizzes.map(quiz => h("option", { value: quiz, selected: quiz === quizId }, quiz))));
  }

  function showSelection() {
    const { size } = grid.selection;
    $("selection").hidden = size === 0;
    document.body.classList.toggle("with-selection", size > 0);
    setText($("selection-count"), t("selected", { n: count(size) }));
  }

  function exportRows() {
    const seconds = now();
    const header = ["student_id", "student_name", "group", "status", "since", "question", "answered", "total", "seconds_left", "away_count", "away_seconds",
      "offline_seconds", "reconnects", ...(settings.scores ? ["score_reported"] : []), "flags", "risk", "attempt"];
    const iso = instant => (instant == null ? "" : new Date(instant * 1000).toISOString());
    function* rows() {
      for (const student of query.rows) {
        const { view } = student, left = student.secondsLeft(seconds);
        yield [view.student_id, view.student_name, view.group, view.label, iso(student.labelSince()), view.question_number_current, view.question_answered, view.question_total,
          left === null ? "" : Math.round(left), view.away_count, Math.round(student.awaySeconds(seconds)), Math.round(student.offlineSeconds(seconds)), view.reconnects,
          ...(settings.scores ? [view.score ?? ""] : []), view.flags.join(" "), student.risk(seconds), view.quiz_attempt_id];
      }
    }
    archive.note("students.csv", query.rows.length);
    download(`${fileName}-${new Date().toISOString().slice(0, 16).replace(/[T:]/g, "-")}.csv`, header, rows());
    $("exports").close();
  }

  /** What the service has kept of everybody whom this proctor may see. */
  async function exportRecord(what) {
    setText($("exports-note"), t("timeline_loading"));
    try {
      save(`${fileName}-${what}`, await archive.file(what));
      $("exports").close();
    } catch (error) {
      setText($("exports-note"), t("export_failed", { why: error.message }));
    }
  }

  // --- controls ---

  function setView(asTiles) {
    settings.tiles = asTiles;
    keep();
    $("grid").hidden = asTiles;
    $("tiles").hidden = !asTiles;
    $("view-table").setAttribute("aria-pressed", !asTiles);
    $("view-tiles").setAttribute("aria-pressed", asTiles);
    tiles.restyle();
    grid.moved = true;
    schedule();
  }

  function hold(held) {
    query.held = held;
    newNames = true;
    schedule();
  }

  const KEYS = {
    "/": ["k_search", () => $("search").focus()],
    j: ["k_move", () => grid.move(1), "j k"],
    k: [null, () => grid.move(-1)],
    x: ["k_select", () => grid.activeStudent && grid.toggle(grid.activeStudent, grid.active, false)],
    Enter: ["k_open", () => grid.activeStudent && open(grid.activeStudent)],
    m: ["k_message", () => act("message", chosenIds())],
    w: ["k_warn", () => act("warn", chosenIds())],
    p: ["k_pause", () => {
      const ids = chosenIds();
      const paused = ids.length && ids.every(id => students.byId.get(id).view.lifecycle === "paused");
      act(paused ? "resume" : "pause", ids);
    }],
    a: ["k_ack", () => {
      const first = grid.selection.size || drawer.isOpen ? chosenIds() : [students.attention.keys().next().value ?? chosenIds()[0]];
      if (first[0]) commands.acknowledge(first);
    }],
    v: ["k_tiles", () => setView(!settings.tiles)],
    f: ["k_freeze", () => hold(!query.held)],
    Escape: ["k_close", () => (drawer.isOpen ? drawer.close() : grid.clearSelection())],
    "?": ["k_help", () => $("help").showModal()],
  };

  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const { target, key } = event;
    const typing = target.matches("input:not([type=checkbox]), textarea, select");
    if (typing) {
      if (key === "Escape" && target === $("search")) $("grid").focus();
      return;
    }
    if (key === "Enter" && target.closest("button, a, summary, canvas")) return;
    if (!settings.shortcuts && key !== "Escape" && key !== "Enter") return;
    const found = KEYS[key.length === 1 ? key.toLowerCase() : key];
    if (!found) return;
    event.preventDefault();
    found[1]();
    schedule();
  });

  $("search").addEventListener("input", () => query.set({ text: $("search").value.trim() }));
  $("group").addEventListener("change", () => query.set({ group: $("group").value }));
  $("sort").addEventListener("change", () => query.set({ sort: $("sort").value, reversed: false }));
  $("hold").addEventListener("click", () => hold(!query.held));
  $("view-table").addEventListener("click", () => setView(false));
  $("view-tiles").addEventListener("click", () => setView(true));
  $("export").addEventListener("click", () => {
    setText($("exports-note"), "");
    $("exports-choices").replaceChildren(
      button("table", t("export_shown", { n: count(query.rows.length) }), { onclick: exportRows }),
      button("clock", t("export_timeline"), { onclick: () => exportRecord("timeline.csv") }),
      button("message", t("export_talk"), { onclick: () => exportRecord("conversation.csv") }),
    );
    $("exports").showModal();
  });
  $("selection-clear").addEventListener("click", () => grid.clearSelection());
  $("open-help").addEventListener("click", () => $("help").showModal());
  $("open-settings").addEventListener("click", () => $("settings").showModal());
  $("act-on").addEventListener("click", () => {
    setText($("everywhere-title"), t("act_on", { n: count(query.rows.length) }));
    const close = () => $("everywhere").close();
    $("everywhere-acts").replaceChildren(...buttons(shownIds, close));
    $("everyone").hidden = Boolean(claims.group); // whom the service lets act on one group only
    $("everyone-acts").replaceChildren(...buttons(() => "everyone", close));
    $("everywhere").showModal();
  });
  addEventListener("hashchange", () => {
    const fresh = access();
    if (fresh?.token) link.useToken(fresh.token);
  });
  for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("click", event => event.target === dialog && dialog.close());

  function bind(id, name, apply) {
    const input = $(id), isBox = input.type === "checkbox";
    if (isBox) input.checked = settings[name];
    else input.value = settings[name];
    input.addEventListener("change", async () => {
      settings[name] = isBox ? input.checked : input.value;
      await apply?.(input);
      keep();
      schedule();
    });
  }

  function say_all() {
    speak(settings.language);
    const options = (id, pairs) => $(id).replaceChildren(...pairs.map(([value, text]) => h("option", { value }, text)));
    options("sort", SORTS.map(sort => [sort, t(`sort_${sort}`)]));
    options("set-language", Object.entries(LANGUAGES));
    options("set-theme", ["auto", "light", "dark"].map(each => [each, t(`theme_${each}`)]));
    options("set-density", ["comfortable", "compact"].map(each => [each, t(each)]));
    $("set-language").value = settings.language;
    $("set-theme").value = settings.theme;
    $("set-density").value = settings.density;
    const labelled = (id, picture, key) => {
      $(id).replaceChildren(mark(picture), h("span", { class: "wide-only" }, t(key)));
      $(id).setAttribute("aria-label", t(key));
      $(id).title = t(key);
    };
    labelled("view-table", "table", "view_table");
    labelled("view-tiles", "tiles", "view_tiles");
    labelled("export", "download", "export");
    $("act-on").replaceChildren(mark("more"), h("span", {}, ""));
    for (const [id, picture] of [["open-help", "help"], ["open-settings", "gear"], ["drawer-close", "close"]]) $(id).replaceChildren(mark(picture));
    $("drawer-previous").replaceChildren(mark("resume"));
    $("drawer-next").replaceChildren(mark("resume"));
    $("selection-acts").replaceChildren(...buttons(chosenIds));
    $("legend").replaceChildren(...LABELS.map(label => h("span", { "data-label": label }, mark(label), t(label))));
    $("help-keys").replaceChildren(...Object.entries(KEYS).filter(([, [what]]) => what).map(([key, [what, , shown]]) =>
      h("div", {}, h("dt", {}, ...(shown ?? key).split(" ").map(each => h("kbd", {}, each === "Escape" ? "Esc" : each))), h("dd", {}, t(what)))));
    showExam();
    showGroups.text = null;
    showBanners.shown = null;
    buildStrip();
    grid.spoken();
    attention.spoken();
    tiles.restyle();
    inbox.dirty = newNames = newDrawer = tick = health = true;
    showSelection();
    schedule();
  }

  bind("set-language", "language", say_all);
  bind("set-theme", "theme", () => {
    dress();
    tiles.restyle();
  });
  bind("set-density", "density", () => {
    grid.density = settings.density;
    dress();
    grid.resized();
  });
  bind("set-scores", "scores", () => {
    grid.showScores = settings.scores;
    grid.moved = newDrawer = true;
  });
  bind("set-sound", "sound");
  bind("set-shortcuts", "shortcuts");
  bind("set-desktop", "desktop", async input => {
    if (!settings.desktop) return;
    const allowed = "Notification" in window && (await Notification.requestPermission()) === "granted";
    if (allowed) return;
    settings.desktop = input.checked = false;
    setText($("set-desktop-hint"), t("desktop_denied"));
  });
  dark.addEventListener("change", () => {
    dress();
    tiles.restyle();
    schedule();
  });
  if (calm.matches) document.documentElement.dataset.calm = "";
  grid.density = settings.density;
  grid.showScores = settings.scores;
  $("tiles").addEventListener("scroll", () => ($("tip").hidden = true), { passive: true });
  $("grid").addEventListener("scroll", () => schedule(), { passive: true });
  new ResizeObserver(() => {
    grid.moved = true;
    schedule();
  }).observe($("grid"));
  say_all();
  setView(settings.tiles);
  link.connect();
  window.dashboard = { students, query, grid, link, commands }; // for the curious, and for tests
}
