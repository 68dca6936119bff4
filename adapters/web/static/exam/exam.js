// The demo exam: what a school's own exam page does to be monitored, and how it tells the student (`words.js` has the words).
//
// The page owns the exam (questions, answers, the clock); the student script only hears about it through `update` and `submit`.
// The token comes in the fragment, as `#token=...&url=wss://...`; a real exam page has its LMS put both into the page.
"use strict";

const MINUTES = 30;

const $ = id => document.getElementById(id);
const parameters = new URLSearchParams(location.hash.slice(1));
if (parameters.has("token")) sessionStorage.setItem("exam:token", parameters.get("token"));
if (parameters.has("token") && parameters.has("url")) sessionStorage.setItem("exam:url", parameters.get("url"));
history.replaceState(null, "", location.pathname); // a token does not belong into the address bar

const token = sessionStorage.getItem("exam:token");
const url = sessionStorage.getItem("exam:url") ?? `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
const kept = `exam:${token?.split(".")[1] ?? ""}`;
const exam = JSON.parse(sessionStorage.getItem(kept)) ?? { answers: {}, at: 0, started: 0, end: 0, over: "" };
const records = []; // what this page has told of the student
let monitor = null;
let handIsUp = false;
let connection = null;
let lastWords = "";

function keep() {
  sessionStorage.setItem(kept, JSON.stringify(exam));
}

/** Everything about the exam that the proctor is shown. */
function fields() {
  return {
    question_number_current: exam.at + 1,
    question_answered: Object.keys(exam.answers).length,
    question_total: QUESTIONS[language].length,
    time_start: exam.started,
    time_end: exam.end,
  };
}

function changed() {
  keep();
  draw();
  monitor?.update(fields());
}

function begin() {
  if (!exam.started) {
    exam.started = Date.now();
    exam.end = exam.started + MINUTES * 60_000;
    record("started");
  }
  keep();
  monitor = window.Proctorwire.start({
    url,
    token,
    fields: { ...fields(), ...(exam.over && { attempt_state: "submitted", score: score() }) },
    onState: showState,
    onCommand: obey,
  });
  window.examMonitor = monitor; // for the curious, and for tests
  draw();
}

const REASONS = new Set(["token_expired", "closed_4009", "attempt_over"]);

function showLink() {
  if (!connection) return;
  const link = $("link");
  link.dataset.link = connection.connection;
  const text = t(REASONS.has(connection.reason) ? connection.reason : connection.connection);
  if (link.textContent !== text) link.textContent = text;
}

function showState(state) {
  connection = { ...state };
  showLink();
  const paused = state.lifecycle === "paused";
  if ($("paused").hidden === paused) {
    $("paused").hidden = !paused;
    $("during").inert = paused;
    if (paused) $("paused-title").focus();
  }
  if (state.lifecycle === "terminated") finish("terminated");
}

/** A proctor's command. What the exam does about it is the page's business. */
function obey({ command, text, extra_minutes, confirm }) {
  if (command === "message") say(text, false);
  else if (command === "warn") {
    record("warned", text);
    $("notice-text").textContent = text;
    $("notice-ok").onclick = () => {
      $("notice").close();
      confirm();
    };
    $("notice").showModal();
  } else if (command === "update") {
    exam.end += extra_minutes * 60_000;
    say(t("more_minutes", { n: extra_minutes }), false);
    changed();
  } else if (command === "terminate") {
    lastWords = text;
    finish("terminated");
  } else record({ pause: "paused", resume: "resumed" }[command] ?? "other", command);
}

function say(text, mine) {
  const line = document.createElement("li");
  line.className = mine ? "mine" : "";
  line.textContent = text;
  $("talk").append(line);
}

function record(what, text = "") {
  records.unshift([new Date(), what, text]);
  drawRecord();
}

function drawRecord() {
  $("record").replaceChildren(...records.map(([at, what, text]) => {
    const line = document.createElement("li");
    const time = document.createElement("time");
    time.textContent = at.toLocaleTimeString(language);
    line.append(time, t(`record_${what}`, { text }));
    return line;
  }));
}

function score() {
  const right = QUESTIONS[language].filter(([, , answer], n) => exam.answers[n] === answer).length;
  return Math.round((100 * right) / QUESTIONS[language].length);
}

function finish(how) {
  if (!exam.over) {
    exam.over = how;
    keep();
    if (how === "submitted") monitor.submit({ ...fields(), score: score() });
  }
  draw();
  $("after-title").focus();
}

function draw() {
  const running = Boolean(monitor) && !exam.over;
  $("before").hidden = Boolean(monitor);
  $("during").hidden = !running;
  $("after").hidden = !exam.over || !monitor;
  $("left-box").hidden = !running;
  if (exam.over && monitor) {
    const how = exam.over === "submitted" ? "done" : "ended";
    $("after-title").textContent = t(how);
    $("after-text").textContent = lastWords || t(`${how}_text`);
  }
  if (!running) return;
  tick();
  const questions = QUESTIONS[language];
  const [question, choices] = questions[exam.at];
  $("step").textContent = t("step", { n: exam.at + 1, of: questions.length });
  $("question-title").textContent = question;
  $("choices").replaceChildren(
    ...choices.map((text, n) => {
      const label = document.createElement("label");
      label.className = "choice";
      const input = Object.assign(document.createElement("input"), { type: "radio", name: "choice", value: n });
      input.checked = exam.answers[exam.at] === n;
      input.onchange = () => {
        exam.answers[exam.at] = n;
        keep();
        drawMap();
        monitor.update(fields());
      };
      label.append(input, text);
      return label;
    }),
  );
  $("previous").disabled = exam.at === 0;
  $("next").disabled = exam.at === questions.length - 1;
  drawMap();
}

function drawMap() {
  $("map").replaceChildren(
    ...QUESTIONS[language].map((_, n) => {
      const item = document.createElement("li");
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: n + 1 });
      const answered = exam.answers[n] !== undefined;
      button.toggleAttribute("data-answered", answered);
      button.setAttribute("aria-label", t(answered ? "question_answered" : "question_open", { n: n + 1 }));
      if (n === exam.at) button.setAttribute("aria-current", "step");
      button.onclick = () => go(n);
      item.append(button);
      return item;
    }),
  );
}

function drawHand() {
  $("hand").setAttribute("aria-pressed", handIsUp);
  $("hand").textContent = t(handIsUp ? "lower" : "raise");
}

function go(to) {
  exam.at = Math.max(0, Math.min(QUESTIONS[language].length - 1, to));
  changed();
  $("question-title").focus();
}

function tick() {
  if (!monitor || exam.over) return;
  const seconds = Math.max(0, Math.round((exam.end - Date.now()) / 1000));
  const two = n => String(n).padStart(2, "0");
  $("left").textContent = `${two(Math.floor(seconds / 60))}:${two(seconds % 60)}`;
  if (seconds === 0) finish("submitted");
}

$("start").onclick = begin;
$("previous").onclick = () => go(exam.at - 1);
$("next").onclick = () => go(exam.at + 1);
$("submit").onclick = () => {
  record("submitted");
  finish("submitted");
};
$("hand").onclick = () => {
  handIsUp = !handIsUp;
  drawHand();
  record(handIsUp ? "raised" : "lowered");
  if (handIsUp) monitor.raiseHand("");
  else monitor.lowerHand();
};
$("say").onsubmit = event => {
  event.preventDefault();
  const words = $("words").value.trim();
  if (!words) return;
  $("words").value = "";
  say(words, true);
  monitor.say(words);
};
document.addEventListener("visibilitychange", () => {
  if (monitor && !exam.over) record(document.hidden ? "left" : "back");
});
setInterval(tick, 500);

if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.dataset.theme = "dark";
$("language").onchange = () => {
  localStorage.setItem("exam:language", $("language").value);
  useLanguage($("language").value);
};

function useLanguage(chosen) {
  speak(chosen);
  $("language").value = language;
  $("problem").textContent = token ? "" : t("no_token");
  showLink();
  drawHand();
  drawRecord();
  draw();
}

useLanguage(localStorage.getItem("exam:language") ?? navigator.language.slice(0, 2));
if (!token) {
  $("start").disabled = true;
  $("problem").hidden = false;
} else if (exam.started) begin();
