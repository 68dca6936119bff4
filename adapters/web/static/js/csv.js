// CSV that spreadsheets open as what it is: UTF-8 with a byte order mark, and no cell that they would run as a formula.

const FORMULA = /^[\s\u00a0\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]/;

/** One cell. Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay numbers. */
export function cell(value) {
  if (value == null) return "";
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : "";
  const text = String(value);
  const safe = FORMULA.test(text) ? `'${text}` : text;
  return /[",\r\n;]/.test(safe) || safe !== text ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Rows as parts of a file, a thousand lines each, so that no huge string is built. */
export function* parts(header, rows) {
  yield `\ufeff${header.map(cell).join(",")}\r\n`;
  let lines = [];
  for (const row of rows) {
    lines.push(row.map(cell).join(","));
    if (lines.length === 1000) {
      yield `${lines.join("\r\n")}\r\n`;
      lines = [];
    }
  }
  if (lines.length) yield `${lines.join("\r\n")}\r\n`;
}

/** Let the user keep these rows as a file. */
export function download(name, header, rows) {
  save(name, new Blob([...parts(header, rows)], { type: "text/csv;charset=utf-8" }));
}

/** Let the user keep this as a file. */
export function save(name, blob) {
  const url = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
