// Sound and desktop alerts: off until switched on, at most one in ten seconds, many at once told as one. Driven by frames and not by
// painting, since a hidden tab does not paint.

import { t } from "./i18n.js";

const EVERY_MS = 10_000;

export class Alerts {
  /** `stands(student)`: whether nobody has seen to them meanwhile, on this page or another proctor's. */
  constructor(settings, stands = () => true) {
    this.settings = settings;
    this.stands = stands;
    this.waiting = [];
    this.at = -Infinity;
    this.timer = null;
  }

  /** Somebody needs attention: pairs of student and reasons. */
  raise(news) {
    if (!news.length || !(this.settings.sound || this.settings.desktop)) return;
    this.waiting.push(...news);
    this.timer ??= setTimeout(() => this._go(), Math.max(0, this.at + EVERY_MS - performance.now()));
  }

  _go() {
    this.timer = null;
    const news = this.waiting.splice(0).filter(([student]) => this.stands(student));
    if (!news.length) return;
    this.at = performance.now();
    const [[student, reasons]] = news;
    const text = news.length === 1
      ? t("alert_one", { name: student.name, what: reasons.map(([what]) => t(`reason_${what}`)).join(", ") })
      : t("alert_attention", { n: new Set(news.map(([each]) => each.id)).size });
    if (this.settings.sound) this._beep();
    if (this.settings.desktop && document.hidden && Notification.permission === "granted") {
      const shown = new Notification(t("title"), { body: text, tag: "proctorwire" });
      shown.onclick = () => {
        window.focus();
        shown.close();
      };
    }
  }

  _beep() {
    this.audio ??= new AudioContext();
    const { audio } = this, start = audio.currentTime;
    for (const [pitch, after] of [[660, 0], [880, 0.14]]) {
      const tone = audio.createOscillator(), volume = audio.createGain();
      tone.frequency.value = pitch;
      volume.gain.setValueAtTime(0, start + after);
      volume.gain.linearRampToValueAtTime(0.12, start + after + 0.02);
      volume.gain.exponentialRampToValueAtTime(0.001, start + after + 0.3);
      tone.connect(volume).connect(audio.destination);
      tone.start(start + after);
      tone.stop(start + after + 0.32);
    }
  }
}
