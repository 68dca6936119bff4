// The dashboard's connection: kept, resumed by snapshot, moved without a gap, and honest about how far behind it is.
//
// How far behind: a token that is sent again is acknowledged, so it serves as a question with an answer; the shortest round trip
// gives the service's clock, and each frame then tells how long it took. Silence after a question means a dead socket.

const WATCH_MS = 60_000;
const ASK_MS = 10_000;
const ANSWER_MS = 6_000;
const CONNECT_MS = 8_000;
const STABLE_MS = 60_000;
const RETRY_MS = [500, 15_000];
const LATE_MS = 3_000;
const MAX_FRAME_CHARACTERS = 7_000;

export function claimsOf(token) {
  const bytes = Uint8Array.from(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")), c => c.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}

export class Link {
  /** `onFrame(action, data)` for what is shown, `onChange()` when the connection's state changed. */
  constructor({ url, token, quizId, groups, onFrame, onChange }) {
    Object.assign(this, { url, token, quizId, groups, onFrame, onChange });
    this.home = url;
    this.claims = claimsOf(token);
    this.state = "connecting"; // live, waiting, stopped
    this.reason = "";
    this.attempt = 0;
    this.lostAt = null; // since when what is shown is old, epoch seconds
    this.offset = null; // the service's clock less ours, ms
    this.bestTrip = Infinity;
    this.latency = null; // of the last frame, ms
    this.heardAt = 0;
    this.askedAt = null;
    this.orders = new Map(); // frames that wait for their ack
    this.socket = this.dialing = this.retiring = null;
    this.failures = 0;
    this.openedAt = 0;
    addEventListener("online", () => this.wake());
    addEventListener("focus", () => this.wake());
    document.addEventListener("visibilitychange", () => document.hidden || this.wake());
    addEventListener("pagehide", () => this.socket?.close(1000));
    addEventListener("pageshow", event => event.persisted && this.wake());
    setInterval(() => this._patrol(), 1_000);
  }

  /** The service's clock, epoch seconds. */
  now() {
    return (Date.now() + (this.offset ?? 0)) / 1000;
  }

  get isLive() {
    return this.state === "live";
  }

  /** How far what is shown is behind, in seconds. */
  behind() {
    const waiting = this.askedAt === null ? 0 : performance.now() - this.askedAt;
    return Math.max(this.latency ?? 0, waiting > 1_000 ? waiting : 0) / 1000;
  }

  /** Whether what is shown may be old. */
  get isStale() {
    return !this.isLive || this.behind() * 1000 > LATE_MS;
  }

  useToken(token) {
    this.token = token;
    this.claims = claimsOf(token);
    if (this.state === "stopped") {
      this.state = "waiting";
      this.connect();
    } else this._ask();
  }

  /** Send a command; it is sent again on the next connection until the service has it. */
  order(data) {
    for (const part of parts({ ...data, quiz_id: this.quizId })) {
      this.orders.set(part.command_id, part);
      this._send("lmsQuizProctorCommand", part);
    }
  }

  wake() {
    if (this.state === "stopped") return;
    this.failures = 0;
    if (!this.socket) this._dial(0);
    else this._ask();
  }

  // --- connecting ---

  _dial(delay) {
    clearTimeout(this._dialAlarm);
    this._dialAlarm = setTimeout(() => this.connect(), delay);
  }

  _retry(least = 0) {
    const [first, most] = RETRY_MS;
    this._dial(least + Math.random() * Math.min(most, first * 2 ** this.failures++)); // full jitter
  }

  connect() {
    if (this.dialing || this.state === "stopped") return;
    if (this.claims.exp * 1000 < Date.now() + (this.offset ?? 0) && (this.offset !== null || this.failures > 1)) {
      this._stop("token");
      return;
    }
    this.attempt += 1;
    this._final = "";
    const next = (this.dialing = new WebSocket(this.url, ["proctorwire", `bearer.${this.token}`]));
    const slow = setTimeout(() => {
      if (this.dialing !== next) return;
      next.onclose = next.onopen = null;
      next.close();
      this._failed();
    }, CONNECT_MS);
    next.onopen = () => {
      clearTimeout(slow);
      this.dialing = null;
      this.retiring = this.socket;
      this.socket = next;
      this.openedAt = performance.now();
      this.askedAt = null;
      this._watch();
      this._ask();
      for (const order of this.orders.values()) this._send("lmsQuizProctorCommand", order);
    };
    next.onmessage = ({ data }) => this._receive(next, data);
    next.onclose = ({ code }) => this._closed(next, code);
    this.onChange();
  }

  _failed() {
    this.dialing = null;
    this.url = this.home;
    if (!this.socket) this._becomes("waiting");
    this._retry();
  }

  _closed(which, code) {
    if (which === this.dialing) return this._failed();
    if (which !== this.socket) return undefined;
    this.socket = null;
    if (performance.now() - this.openedAt > STABLE_MS) this.failures = 0;
    if (this._final || (code >= 4000 && code < 4100)) {
      if (code === 4001 || this._final === "token_invalid") return this._stop("token");
      return this._stop(code === 4003 || this._final === "forbidden" ? "forbidden" : `closed ${code}`);
    }
    this._becomes("waiting");
    if (code >= 4200 && code < 4300) return this._dial(Math.random() * RETRY_MS[0]);
    if (code >= 4100) this.failures += 2;
    return this._retry(code >= 4100 && code < 4200 ? 2_000 : 0);
  }

  _stop(reason) {
    this.reason = reason;
    clearTimeout(this._dialAlarm);
    this.socket?.close(1000);
    this.socket = null;
    this._becomes("stopped");
  }

  _becomes(state) {
    if (this.state === "live" && state !== "live") this.lostAt = this.now();
    this.state = state;
    if (state === "live") {
      this.lostAt = null;
      this.attempt = 0;
    }
    this.onChange();
  }

  // --- talking ---

  _send(action, data) {
    if (this.socket?.readyState === 1) this.socket.send(JSON.stringify({ action, data }));
  }

  _watch() {
    this._watchedAt = performance.now();
    this._send("lmsQuizMonitoringProctor", { quiz_id: this.quizId, ...(this.groups.length && { groups: this.groups }) });
  }

  _ask() {
    if (this.askedAt !== null || this.socket?.readyState !== 1) return;
    this.askedAt = this._lastAsk = performance.now();
    this._send("lmsQuizToken", { token: this.token });
  }

  _patrol() {
    if (!this.socket) return;
    const now = performance.now();
    if (now - this._watchedAt > WATCH_MS) this._watch();
    if (this.askedAt === null && now - this._lastAsk > ASK_MS) this._ask();
    if (this.askedAt === null || now - this.askedAt < ANSWER_MS) return;
    if (now - this.askedAt > 3 * ANSWER_MS || this.heardAt > this.askedAt) {
      this.askedAt = null; // we slept, or other frames show that it lives: ask again
      this._ask();
      return;
    }
    const dead = this.socket;
    this.socket = null;
    dead.onclose = dead.onmessage = null;
    dead.close();
    this._becomes("waiting");
    this._retry();
  }

  _answered(server_time) {
    if (this.askedAt === null) return;
    const trip = performance.now() - this.askedAt;
    this.askedAt = null;
    this.latency = trip / 2;
    if (trip <= this.bestTrip || this.offset === null) {
      this.bestTrip = trip;
      this.offset = server_time + trip / 2 - Date.now();
    }
    this.bestTrip += 1; // clocks drift: a measurement ages
  }

  _receive(from, text) {
    this.heardAt = performance.now();
    const { action, data } = JSON.parse(text);
    if (action === "ack") {
      if (data.command_id) this.orders.delete(data.command_id);
      else this._answered(data.server_time);
    } else if (action === "reconnect") {
      if (data.url && this._isAllowed(data.url)) this.url = data.url;
      this._dial(data.after_ms); // the old socket goes when the new one has shown the exam
    } else if (action === "error") this._refused(from, data);
    else {
      if (action === "lmsQuizMonitoringUpdate" && this.offset !== null) {
        this.latency = Math.max(Date.now() + this.offset - data.server_time, 0);
      }
      if (action === "lmsQuizMonitoringSnapshot" && from === this.socket && data.page === data.pages) this._resumed();
      this.onFrame(action, data);
    }
  }

  _resumed() {
    const old = this.retiring;
    this.retiring = null;
    if (old) {
      old.onclose = old.onmessage = null;
      old.close(1000);
    }
    if (!this.isLive) this._becomes("live");
  }

  _refused(from, error) {
    if (error.final && from === this.socket) this._final = error.code;
    if (error.action === "lmsQuizToken") {
      this._answered(Date.now() + (this.offset ?? 0));
      return;
    }
    if (error.command_id && error.code !== "unavailable") {
      this.orders.delete(error.command_id);
      this.onFrame("refused", error);
    } else if (error.action === "lmsQuizMonitoringProctor" && error.code === "forbidden") this._stop("forbidden");
  }

  _isAllowed(address) {
    const { host, hostname, protocol } = new URL(address);
    const allowed = [new URL(this.home).host, ...(this.claims.endpoints ?? [])];
    return protocol === new URL(this.home).protocol && (allowed.includes(host) || allowed.includes(hostname));
  }
}

/** A command to many students in frames that are small enough; each has an id of its own. */
function parts(order) {
  const { student_ids, ...rest } = order;
  if (!student_ids) return [order];
  const room = MAX_FRAME_CHARACTERS - new TextEncoder().encode(JSON.stringify(rest)).length;
  const found = [[]];
  let used = 0;
  for (const id of student_ids) {
    const size = new TextEncoder().encode(JSON.stringify(id)).length + 1;
    if (used + size > room || found.at(-1).length === 1_000) {
      found.push([]);
      used = 0;
    }
    found.at(-1).push(id);
    used += size;
  }
  return found.map((ids, n) => ({ ...rest, student_ids: ids, command_id: n ? `${rest.command_id}.${n}` : rest.command_id }));
}
