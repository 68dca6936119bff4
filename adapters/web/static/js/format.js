// Numbers and times as people read them.

import { t, language } from "./i18n.js";

const two = n => String(n).padStart(2, "0");

/** 0:07, 12:34, 1:02:03: a duration that is read beside others. */
export function clock(seconds) {
  const s = Math.max(0, Math.round(seconds));
  const hours = Math.floor(s / 3600);
  const rest = `${hours ? two(Math.floor((s % 3600) / 60)) : Math.floor(s / 60)}:${two(s % 60)}`;
  return hours ? `${hours}:${rest}` : rest;
}

/** 7 s, 12 min, 1 h 5 min: a duration in a sentence. */
export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return t("seconds", { n: s });
  if (s < 3600) return t("minutes", { n: Math.floor(s / 60) });
  const minutes = Math.floor((s % 3600) / 60);
  return t("hours", { n: Math.floor(s / 3600) }) + (minutes ? ` ${t("minutes", { n: minutes })}` : "");
}

let plain = { of: null }, tenths = { of: null };

/** A formatter is dear to make, so each is kept until the language changes. */
function formatter(kept, options) {
  return kept.of === language() ? kept : { of: language(), format: new Intl.NumberFormat(language(), options).format };
}

export function count(n) {
  plain = formatter(plain);
  return plain.format(n);
}

export function time(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString(language(), { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
}

export function decimal(n) {
  tenths = formatter(tenths, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  return tenths.format(n);
}
