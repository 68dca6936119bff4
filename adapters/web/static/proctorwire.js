/*! Proctorwire student script. SPDX-License-Identifier: Apache-2.0
 *
 * Put this file on the exam page and start it with a token:
 *
 *   const monitor = Proctorwire.start({ url: "wss://monitor.example/", token, onCommand: command => show(command) });
 *   monitor.update({ question_number_current: 3, question_answered: 2, question_total: 10, time_end: end });
 *   monitor.submit({ score: 80 });
 *
 * It tells the service where the student is in the exam, whether the page is in front, and that the page is still there: no
 * keys, no clipboard, no screen, nothing about other pages. It shows nothing; what the student sees is up to `onState` and
 * `onCommand`.
 *
 * Options: `url`, `token` (required); `fields` known at the start; `getToken()` for a fresh token (may be async); `hosts` that
 * `reconnect` may lead to, besides the token's `endpoints`; `workerUrl` (this same file, from the page's own origin);
 * `heartbeatMs` (19000); `awayAfterMs` without focus (2000); `onCommand(command)`, `onState(state)`, `onError(error)`.
 */
(() => {
  "use strict";

  // The file is also its own worker: an alarm clock, since timers of a hidden page ring once a minute and those of a worker on time.
  if (typeof document === "undefined") {
    self.onmessage = ({ data: [id, ms] }) => setTimeout(() => self.postMessage(id), ms);
    self.postMessage(0);
    return;
  }

  const ANSWER_MS = 10_000; // a socket that leaves a question unanswered for so long is dead, whatever its state says
  const CONNECT_MS = 8_000;
  const STABLE_MS = 60_000; // a connection that lasted this long starts the back-off again
  const RETRY_MS = [2_000, 30_000]; // full jitter from the first try on: whole classes lose the network, and get it back, together
  const PROGRESS_MS = 1_000;
  const TOKEN_MARGIN_MS = 300_000;
  const HIDDEN_MS = 60_000;
  const ASLEEP_MS = 300_000; // a frozen tab, or a phone's hidden one, runs nothing until it is shown again
  const KEPT = 40;
  const ECHO_AFTER = 3.5; // beats in which nothing was heard: the next one asks for an answer
  const script = document.currentScript?.src || "";
  const phone = navigator.userAgentData?.mobile ?? /Mobi|iP(hone|ad|od)/.test(navigator.userAgent);

  const newId = () => [...crypto.getRandomValues(new Uint32Array(4))].map(n => n.toString(36)).join("");

  function claimsOf(token) {
    const [, body] = token.split(".");
    const bytes = Uint8Array.from(atob(body.replace(/-/g, "+").replace(/_/g, "/")), c => c.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  }

  /** Timers that ring on time in a hidden tab, if there can be a worker: each is set twice and rings once. */
  function alarms(workerUrl) {
    const waiting = new Map();
    const clock = { works: false, later, cancel: id => waiting.delete(id) };
    let worker = null, last = 0;
    const ring = id => {
      const call = waiting.get(id);
      waiting.delete(id);
      call?.();
    };
    function later(ms, call) {
      waiting.set(++last, call);
      setTimeout(ring, ms, last);
      worker?.postMessage([last, ms]);
      return last;
    }
    (function tryNext(urls) {
      if (!urls.length) return;
      const failed = () => {
        worker = null;
        clock.works = false;
        tryNext(urls.slice(1));
      };
      try {
        const candidate = new Worker(urls[0]());
        candidate.onerror = failed; // a policy of the page, or a wrong address
        candidate.onmessage = ({ data }) => {
          worker = candidate;
          clock.works = true;
          ring(data);
        };
      } catch {
        failed();
      }
    })([
      ...(workerUrl ? [() => workerUrl] : []),
      ...(script.startsWith(location.origin + "/") ? [() => script] : []),
      () => URL.createObjectURL(new Blob(["onmessage=({data:[i,m]})=>setTimeout(()=>postMessage(i),m);postMessage(0)"])),
    ]);
    return clock;
  }

  /** Hold a lock with this name for as long as the page lives. False if another page has it: then this is a duplicated tab. */
  function claim(name) {
    if (!navigator.locks) return Promise.resolve(true);
    return new Promise(resolve => {
      const hold = () => {
        resolve(true);
        return new Promise(() => {}); // a page that holds a lock isn't frozen either
      };
      // After a reload the page before us may need a moment to let go.
      navigator.locks.request(name, { signal: AbortSignal.timeout(1_000) }, hold).catch(() => resolve(false));
    });
  }

  function start(options) {
    const { onCommand, onState, onError, getToken, heartbeatMs = 19_000, awayAfterMs = 2_000 } = options;
    const clock = alarms(options.workerUrl), { later, cancel } = clock;
    let token = options.token, claims = claimsOf(token);
    const ids = { quiz_id: claims.quiz_id, quiz_attempt_id: claims.quiz_attempt_id, student_id: claims.sub };
    const key = `proctorwire:${ids.quiz_id}:${ids.quiz_attempt_id}`;
    let known = { ...options.fields, user_status: "active" };
    let saved = null; // what outlives a reload: { tab, seq, reports, words, seen }
    const answers = new WeakMap(); // what waits -> who waits for it
    const unsent = new WeakSet(); // reports that nobody can have seen
    const state = { connection: "connecting", reason: "", lifecycle: "", time_end: null, waiting: 0 };

    let url = options.url, socket = null, dialing = null, retiring = null;
    let joined = false, flying = null, stopped = false, leaving = false, staying = false, frozen = false;
    let failures = 0, openedAt = 0, heard = 0, lastProgress = 0, promised = 0;
    let offset = null, bestTrip = Infinity, askedAt = 0;
    let dialAlarm, beatAlarm, answerAlarm, blurAlarm, renewAlarm, tokenAlarm, progressAlarm, closedAlarm;

    /** The service's clock in milliseconds. */
    const now = () => Date.now() + (offset ?? 0);
    const hidden = () => document.visibilityState === "hidden";
    const isLive = () => socket?.readyState === 1;
    const isDone = () => known.attempt_state === "submitted" && !saved.reports.length && !saved.words.length;

    function tell(changes) {
      const before = JSON.stringify(state);
      Object.assign(state, changes, { waiting: saved ? saved.reports.length + saved.words.length : 0 });
      if (JSON.stringify(state) !== before) onState?.({ ...state });
    }

    function save() {
      try {
        sessionStorage.setItem(key, JSON.stringify(saved));
      } catch { /* no storage: the outbox lives as long as the page */ }
    }

    async function load() {
      try {
        saved = JSON.parse(sessionStorage.getItem(key));
      } catch { /* the same as nothing */ }
      if (!saved || !(await claim(`proctorwire:${saved.tab}`))) {
        saved = { tab: newId(), seq: 0, reports: [], words: [], seen: [] };
        await claim(`proctorwire:${saved.tab}`);
      }
      save();
    }

    // --- what we say ---

    /** Until when the next frame comes at the latest. */
    function promise() {
      if (frozen || (phone && hidden())) return ASLEEP_MS;
      if (hidden()) return clock.works ? 2 * heartbeatMs : HIDDEN_MS;
      return heartbeatMs;
    }

    /** Put the whole present state into the outbox. What waits and tells of no other status is replaced by it. */
    function report() {
      const { reports } = saved, last = reports.at(-1);
      if (last && last !== flying && last.user_status === known.user_status) {
        reports.pop();
        if (unsent.has(last)) saved.seq--;
      }
      const next = { ...known, ...ids, seq: ++saved.seq };
      unsent.add(next);
      reports.push(next);
      if (reports.length > KEPT) reports.splice(1, 1);
      save();
      pump();
    }

    /** Put a message or receipt into the outbox. The promise tells whether it was accepted. */
    function enqueue(action, data) {
      const item = { action, data };
      saved.words.push(item);
      if (saved.words.length > KEPT) saved.words.shift();
      save();
      return new Promise(resolve => {
        answers.set(item, resolve);
        pump();
      });
    }

    /** Send the next thing that waits, reports first. One at a time, since a server may handle two at once. */
    function pump() {
      if (!saved) return;
      tell({});
      if (!isLive() || flying) return;
      if (saved.reports.length) {
        flying = saved.reports[0];
        unsent.delete(flying);
        const timed = { tab_id: saved.tab, next_ms: (promised = promise()), timestamp_sent: Math.round(now()) };
        send("lmsQuizMonitoringStudent", { ...flying, ...timed });
        beatLater();
      } else if (joined && saved.words.length) {
        flying = saved.words[0];
        send(flying.action, flying.data);
      } else return;
      expectAnswer();
    }

    function send(action, data) {
      if (!isLive()) return;
      socket.send(JSON.stringify({ action, data }));
    }

    /** Reports and heartbeats keep the promise; words and receipts do not. */
    function beatLater() {
      cancel(beatAlarm);
      if (!isDone()) beatAlarm = later(heartbeatMs, () => beat(performance.now() - heard > ECHO_AFTER * heartbeatMs));
    }

    /** Say that nothing changed; with `echo`, also find out whether anybody hears it. */
    function beat(echo) {
      if (!isLive()) return;
      beatLater();
      if (!joined || saved.reports.length) return; // a report is on its way, and says more
      send("lmsQuizMonitoringHeartbeat", { seq: saved.seq, next_ms: (promised = promise()), ...(echo && { echo }) });
      if (echo && !flying) expectAnswer();
    }

    /** The page's next word may take longer than it promised: say so, once nothing else is on its way. */
    function slower() {
      if (isLive() && promise() > promised && !isDone()) beat();
    }

    /** A question that was really asked and stays unanswered means a dead socket. Who slept meanwhile asks again. */
    function expectAnswer() {
      const asked = (askedAt = performance.now());
      cancel(answerAlarm);
      answerAlarm = later(ANSWER_MS, () => {
        const item = flying;
        flying = null;
        if (heard < asked && performance.now() - asked < 2 * ANSWER_MS) dropAndDial();
        else if (item) pump();
        else beat(true);
      });
    }

    // --- what the page does ---

    function look() {
      cancel(blurAlarm);
      const looksAway = () => !document.hasFocus() && setAway(true);
      if (hidden() || frozen) setAway(true);
      // inside another page, focus elsewhere on that page is no absence
      else if (window === top && !document.hasFocus()) blurAlarm = later(awayAfterMs, looksAway);
      else setAway(false);
    }

    function setAway(away) {
      const user_status = away ? "away" : "active";
      if (known.user_status === user_status && !frozen) return;
      known.user_status = user_status;
      if (saved && !leaving) report();
    }

    /** We may have slept, or the network may be back: try now, and doubt the socket. */
    function wake(within = 0) {
      if (leaving || stopped || !saved) return;
      failures = 0;
      look();
      if (!isLive()) dial(Math.random() * within);
      else beat(true);
    }

    const events = [
      // Who was away already says that its next word may take longer now.
      [document, "visibilitychange", () => (hidden() ? (look(), slower()) : wake())],
      [window, "focus", look],
      [window, "blur", look],
      [window, "online", () => wake(RETRY_MS[0])],
      [document, "freeze", () => ((frozen = true), look())],
      [document, "resume", () => ((frozen = false), wake())],
      [window, "pageshow", event => event.persisted && ((leaving = false), wake())],
      [window, "pagehide", () => {
        leaving = true;
        // A reload, or the next page of the exam, is no departure: the same tab comes back at once.
        for (const each of [socket, dialing]) each?.close(staying ? 1000 : 4000, "leave");
      }],
    ];
    for (const [target, name, listen] of events) target.addEventListener(name, listen);
    window.navigation?.addEventListener("navigate", ({ destination, downloadRequest }) => {
      if (destination.sameDocument || downloadRequest != null) return;
      staying = new URL(destination.url).origin === location.origin;
      later(3_000, () => (staying = false)); // it was cancelled
    });

    // --- the connection ---

    function dial(delay) {
      cancel(dialAlarm);
      dialAlarm = later(delay, connect);
    }

    function retry(atLeast = 0) {
      if (!isLive()) tell({ connection: "waiting" });
      const [first, most] = RETRY_MS;
      dial(atLeast + Math.random() * Math.min(most, first * 2 ** failures++));
    }

    /** A fresh token if this one ends soon, or seems not to be liked. A page's own clock may be wrong: only two failures prove it. */
    async function refresh() {
      const left = claims.exp * 1_000 - now();
      const doubtful = failures >= 2 && (left < 0 || failures % 3 === 0);
      if (getToken && (left < TOKEN_MARGIN_MS || doubtful)) {
        try {
          setToken(await getToken());
        } catch (error) {
          onError?.(error);
        }
      }
      return claims.exp * 1_000 > now() || (offset === null && failures < 2);
    }

    function setToken(fresh) {
      token = fresh;
      claims = claimsOf(token);
      if (isLive()) send("lmsQuizToken", { token });
      watchToken();
    }

    function watchToken() {
      cancel(tokenAlarm);
      const left = claims.exp * 1_000 - now() - TOKEN_MARGIN_MS;
      if (getToken && left < 2 ** 31) tokenAlarm = later(Math.max(left, 30_000), refresh);
    }

    /** Open a connection. The present one, if any, is kept until the new one has been heard on. */
    async function connect() {
      if (stopped || leaving || dialing) return;
      // A connection that is open outlives its token; a new one can't be had.
      if (!(await refresh())) return isLive() || stop("token_expired");
      if (stopped || leaving || dialing) return;
      const next = (dialing = new WebSocket(url, ["proctorwire", `bearer.${token}`]));
      const slow = later(CONNECT_MS, () => next === dialing && (forget(next), failed()));
      next.onmessage = ({ data }) => receive(JSON.parse(data));
      next.onclose = ({ code }) => closed(next, code);
      next.onopen = () => {
        cancel(slow);
        dialing = null;
        retiring = socket;
        socket = next;
        openedAt = performance.now();
        joined = false;
        flying = null;
        if (saved.reports.length) pump();
        else report();
      };
    }

    function failed() {
      dialing = null;
      url = options.url;
      retry();
    }

    /** Close a socket that nothing is expected from any more. */
    function forget(old) {
      if (!old) return;
      old.onclose = old.onmessage = old.onopen = null;
      old.close(1000);
    }

    function dropAndDial() {
      forget(socket);
      lost();
      retry();
    }

    function lost() {
      if (performance.now() - openedAt > STABLE_MS) failures = 0;
      socket = flying = null;
      cancel(beatAlarm);
      cancel(answerAlarm);
    }

    function closed(which, code) {
      if (which === dialing) return failed();
      if (which !== socket) return;
      const final = which.final || (code >= 4000 && code < 4100);
      lost();
      if (leaving || stopped) return;
      if (final) {
        if (getToken && (code === 4001 || which.final === "token_invalid") && failures < 5) {
          claims.exp = 0;
          return retry();
        }
        return stop(which.final || `closed_${code}`);
      }
      if (isDone()) return stop("submitted");
      if (code >= 4200 && code < 4300) {
        tell({ connection: "waiting" });
        return dial(Math.random() * RETRY_MS[0]);
      }
      const overload = code >= 4100 && code < 4200;
      if (overload) failures += 2;
      retry(overload ? 2_000 : 0);
    }

    function isAllowed(address) {
      const allowed = [new URL(options.url).host, ...(options.hosts ?? []), ...(claims.endpoints ?? [])];
      const { host, hostname, protocol } = new URL(address);
      const safe = protocol === "wss:" || protocol === new URL(options.url).protocol;
      return safe && (allowed.includes(host) || allowed.includes(hostname));
    }

    function receive({ action, data }) {
      heard = performance.now();
      if (action === "ack") {
        setClock(data.server_time);
        settle(data);
      } else if (action === "joined") {
        forget(retiring);
        retiring = null;
        joined = true;
        cancel(renewAlarm);
        // Before the service cuts the connection for its age; spread out, because a class joins together.
        renewAlarm = later(data.max_age_s * (700 + 200 * Math.random()), connect);
        watchToken();
        tell({ connection: "live", reason: "", lifecycle: data.lifecycle, time_end: data.time_end });
        if (data.last_seq > saved.seq) {
          saved.seq = data.last_seq;
          report();
        }
      } else if (action === "lmsQuizCommand") command(data);
      else if (action === "reconnect") {
        if (data.url && isAllowed(data.url)) url = data.url;
        dial(data.after_ms);
      } else if (action === "error") refused(data);
    }

    /** The offset of the service's clock, from the shortest round trip so far. */
    function setClock(server_time) {
      const trip = performance.now() - askedAt;
      if (!flying && offset !== null) return;
      if (trip < bestTrip) {
        bestTrip = trip;
        offset = server_time + trip / 2 - Date.now();
      }
    }

    /** Something was answered, with an ack or an error: it waits no longer. */
    function settle({ seq, message_id, command_id }, error) {
      const reference = message_id ?? command_id;
      if (seq != null) saved.reports = saved.reports.filter(each => each.seq > seq);
      else if (reference != null) {
        const at = saved.words.findIndex(({ data }) => (data.message_id ?? data.command_id) === reference);
        if (at >= 0) answers.get(saved.words.splice(at, 1)[0])?.(!error);
      }
      if (flying && !saved.reports.includes(flying) && !saved.words.includes(flying)) flying = null;
      if (!flying) cancel(answerAlarm);
      save();
      pump();
      slower();
      if (isDone()) cancel(beatAlarm);
    }

    function refused(error) {
      onError?.(error);
      if (error.final) socket.final = error.code;
      else if (error.code === "attempt_over") stop(error.code);
      else if (error.code === "exam_closed") {
        tell({ reason: error.code });
        settle(error, error);
        cancel(closedAlarm);
        closedAlarm = later(30_000, report);
      } else if (error.code === "report_first") report();
      else if (error.code !== "unavailable" && error.code !== "token_invalid") settle(error, error);
    }

    /** A command goes to the page once, however often it is sent; it counts as delivered when `onCommand` has taken it. */
    function command(data) {
      const { command_id } = data;
      if (!saved.seen.includes(command_id)) {
        if (data.command === "pause") tell({ lifecycle: "paused" });
        if (data.command === "resume") tell({ lifecycle: "in_progress" });
        if (data.command === "terminate") tell({ lifecycle: "terminated" });
        try {
          onCommand?.({ ...data, confirm: () => confirm(command_id) });
        } catch (error) {
          onError?.(error);
          return; // it will be sent again
        }
        saved.seen = [...saved.seen, command_id].slice(-KEPT);
      }
      enqueue("lmsQuizCommandReceipt", { command_id, outcome: "delivered" });
    }

    // --- what the page calls ---

    const confirm = command_id => enqueue("lmsQuizCommandReceipt", { command_id, outcome: "confirmed" });

    /** Tell what is known now: fields of the status report. Quick changes are told together, once a second. */
    function update(fields) {
      const before = JSON.stringify(known);
      known = { ...known, ...fields };
      if (!saved || JSON.stringify(known) === before) return;
      const wait = lastProgress + PROGRESS_MS - performance.now();
      const go = () => {
        lastProgress = performance.now();
        report();
      };
      cancel(progressAlarm);
      if (wait > 0 && !fields?.attempt_state) progressAlarm = later(wait, go);
      else go();
    }

    function say(kind, text) {
      const message_id = newId();
      const data = { message_id, kind, text: (text ?? "").slice(0, 500) };
      return ready.then(() => enqueue("lmsQuizStudentMessage", data));
    }

    /** End monitoring: the service hears that the student left. */
    function stop(reason = "stopped") {
      stopped = true;
      for (const alarm of [dialAlarm, beatAlarm, answerAlarm, blurAlarm, renewAlarm, tokenAlarm, closedAlarm]) cancel(alarm);
      for (const each of [socket, dialing]) each?.close(reason === "stopped" ? 4000 : 1000);
      tell({ connection: "stopped", reason });
    }

    const ready = load().then(() => {
      look();
      connect();
    });

    return {
      update,
      confirm,
      stop,
      now,
      submit: fields => update({ ...fields, attempt_state: "submitted" }),
      say: text => say("chat", text),
      raiseHand: text => say("raise_hand", text),
      lowerHand: () => say("lower_hand"),
      /** Go on with another token, also after `token_expired`. */
      setToken: fresh => {
        setToken(fresh);
        if (stopped) {
          stopped = false;
          dial(0);
        }
      },
      get state() {
        return { ...state };
      },
    };
  }

  window.Proctorwire = { start };
})();
