// The demo exam: what a school's own exam page does to be monitored, and how it tells the student.
//
// The page owns the exam (questions, answers, the clock); the student script only hears about it through `update` and `submit`.
// The token comes in the fragment, as `#token=...&url=wss://...`; a real exam page has its LMS put both into the page.
"use strict";

const MINUTES = 30;
const QUESTIONS = [
  ["Which island of Indonesia has the most inhabitants?", ["Sumatra", "Java", "Borneo", "Sulawesi"], 1],
  ["Which is the highest mountain of Indonesia?", ["Kerinci", "Rinjani", "Puncak Jaya", "Semeru"], 2],
  ["How many time zones does Indonesia have?", ["One", "Two", "Three", "Four"], 2],
  ["Which strait lies between Java and Sumatra?", ["Sunda", "Makassar", "Lombok", "Malacca"], 0],
  ["Which is the largest lake of Indonesia?", ["Poso", "Toba", "Singkarak", "Tempe"], 1],
  ["On which island is the city of Makassar?", ["Sulawesi", "Timor", "Flores", "Java"], 0],
  ["Which city is being built as the new capital?", ["Bandung", "Nusantara", "Surabaya", "Medan"], 1],
  ["Which line crosses the archipelago?", ["The Tropic of Cancer", "The Equator", "The Arctic Circle", "The date line"], 1],
  ["Which animal lives in the wild only on a few Indonesian islands?", ["Tiger", "Komodo dragon", "Elephant", "Crocodile"], 1],
  ["Which volcano's eruption in 1883 was heard thousands of kilometres away?", ["Krakatau", "Merapi", "Agung", "Bromo"], 0],
];

const $ = id => document.getElementById(id);
const parameters = new URLSearchParams(location.hash.slice(1));
if (parameters.has("token")) sessionStorage.setItem("exam:token", parameters.get("token"));
if (parameters.has("token") && parameters.has("url")) sessionStorage.setItem("exam:url", parameters.get("url"));
history.replaceState(null, "", location.pathname); // a token does not belong into the address bar

const token = sessionStorage.getItem("exam:token");
const url = sessionStorage.getItem("exam:url") ?? `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
const kept = `exam:${token?.split(".")[1] ?? ""}`;
const exam = JSON.parse(sessionStorage.getItem(kept)) ?? { answers: {}, at: 0, started: 0, end: 0, over: "" };
let monitor = null;
let handIsUp = false;

function keep() {
  sessionStorage.setItem(kept, JSON.stringify(exam));
}

/** Everything about the exam that the proctor is shown. */
function fields() {
  return {
    question_number_current: exam.at + 1,
    question_answered: Object.keys(exam.answers).length,
    question_total: QUESTIONS.length,
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
    record("started the exam");
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

const LINK = {
  connecting: "Connecting",
  live: "Connected",
  waiting: "No connection: keep working, your answers stay on this device",
  stopped: "Monitoring has ended",
};
const REASONS = {
  token_expired: "Your link has expired. Ask your proctor for a new one; your answers are still here.",
  closed_4009: "The exam was opened in too many windows, and this one was closed.",
  attempt_over: "A newer attempt has begun elsewhere.",
};

function showState(state) {
  const link = $("link");
  link.dataset.link = state.connection;
  const text = REASONS[state.reason] ?? LINK[state.connection];
  if (link.textContent !== text) link.textContent = text;
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
    record(`got a warning: ${text}`);
    $("notice-title").textContent = "A message from your proctor";
    $("notice-text").textContent = text;
    $("notice-ok").onclick = () => {
      $("notice").close();
      confirm();
    };
    $("notice").showModal();
  } else if (command === "update") {
    exam.end += extra_minutes * 60_000;
    say(`You have ${extra_minutes} more minutes.`, false);
    changed();
  } else if (command === "terminate") {
    if (text) $("after-text").textContent = text;
    finish("terminated");
  } else record({ pause: "was paused by a proctor", resume: "was resumed by a proctor" }[command] ?? command);
}

function say(text, mine) {
  const line = document.createElement("li");
  line.className = mine ? "mine" : "";
  line.textContent = text;
  $("talk").append(line);
}

function record(text) {
  const line = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString();
  line.append(time, text);
  $("record").prepend(line);
}

function score() {
  const right = QUESTIONS.filter(([, , answer], n) => exam.answers[n] === answer).length;
  return Math.round((100 * right) / QUESTIONS.length);
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
    $("after-title").textContent = exam.over === "submitted" ? "Handed in. Thank you." : "Your attempt was ended";
    $("after-text").textContent ||= exam.over === "submitted" ? "You can close this page." : "A proctor has ended it. Please speak to them.";
  }
  if (!running) return;
  tick();
  const [question, choices] = QUESTIONS[exam.at];
  $("step").textContent = `Question ${exam.at + 1} of ${QUESTIONS.length}`;
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
  $("next").disabled = exam.at === QUESTIONS.length - 1;
  drawMap();
}

function drawMap() {
  $("map").replaceChildren(
    ...QUESTIONS.map((_, n) => {
      const item = document.createElement("li");
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: n + 1 });
      const answered = exam.answers[n] !== undefined;
      button.toggleAttribute("data-answered", answered);
      button.setAttribute("aria-label", `Question ${n + 1}, ${answered ? "answered" : "not answered"}`);
      if (n === exam.at) button.setAttribute("aria-current", "step");
      button.onclick = () => go(n);
      item.append(button);
      return item;
    }),
  );
}

function go(to) {
  exam.at = Math.max(0, Math.min(QUESTIONS.length - 1, to));
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
  record("handed in");
  finish("submitted");
};
$("hand").onclick = () => {
  handIsUp = !handIsUp;
  $("hand").setAttribute("aria-pressed", handIsUp);
  $("hand").textContent = handIsUp ? "Your hand is up: take it down" : "Raise your hand";
  record(handIsUp ? "raised a hand" : "took the hand down");
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
  if (monitor && !exam.over) record(document.hidden ? "left this page" : "came back to this page");
});
setInterval(tick, 500);

if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.dataset.theme = "dark";
if (!token) {
  $("start").disabled = true;
  $("problem").hidden = false;
  $("problem").textContent = "This link has no token. Open the link that your school gave you.";
} else if (exam.started) begin();
