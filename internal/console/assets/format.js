// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const missing = (n) => n === undefined || n === null || Number.isNaN(n);

export const count = (n) => missing(n) ? "–" : whole.format(n);

export function short(n) {
  if (missing(n)) return "–";
  if (n >= 1e9) return (n / 1e9).toFixed(1) + " G";
  if (n >= 1e6) return (n / 1e6).toFixed(1) + " M";
  if (n >= 1e5) return (n / 1e3).toFixed(0) + " k";
  return count(n);
}

// rate formats a number per second.
export function rate(n) {
  if (missing(n)) return "–";
  return n < 10 && n > 0 ? n.toFixed(1) : short(n);
}

export function percent(share) {
  if (missing(share)) return "–";
  const p = 100 * share;
  return (p === 0 ? "0" : p < 0.1 ? "< 0.1" : p < 10 ? p.toFixed(1) : p.toFixed(0)) + " %";
}

export function bytes(n) {
  if (missing(n)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return (i === 0 || n >= 100 ? n.toFixed(0) : n.toFixed(1)) + " " + units[i];
}

export function seconds(s) {
  if (missing(s)) return "–";
  if (s === 0) return "0 s";
  if (s < 0.001) return (s * 1000).toFixed(2) + " ms";
  if (s < 1) return (s * 1000).toFixed(s < 0.1 ? 1 : 0) + " ms";
  if (s < 60) return s.toFixed(s < 10 ? 1 : 0) + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + Math.floor(s % 60) + " s";
  if (s < 172800) return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
  return Math.floor(s / 86400) + " days";
}

// axis formats seconds in one unit, exactly enough for half of a round number.
export const axis = (s) => s < 60 ? seconds(s) : s < 3600 ? (s / 60).toFixed(1) + " min" : (s / 3600).toFixed(1) + " h";

// span formats how long something lasts, in one unit.
export function span(s) {
  if (missing(s)) return "–";
  if (s < 60) return Math.max(Math.floor(s), 0) + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 172800) return Math.floor(s / 3600) + " h";
  return Math.floor(s / 86400) + " days";
}

const pad = (n, width = 2) => String(n).padStart(width, "0");

export function clock(text) {
  const t = new Date(text);
  return pad(t.getHours()) + ":" + pad(t.getMinutes()) + ":" + pad(t.getSeconds());
}

export const clockMillis = (text) => clock(text) + "." + pad(new Date(text).getMilliseconds(), 3);

// stamp is the local date and time.
export function stamp(text) {
  const t = new Date(text);
  return t.getFullYear() + "-" + pad(t.getMonth() + 1) + "-" + pad(t.getDate()) + " " + clock(text);
}

// utc is a time in UTC, as logs have it.
export const utc = (text) => new Date(text).toISOString().replace("T", " ").replace(/\.000Z$|Z$/, " UTC");

export const known = (time) => Boolean(time) && !String(time).startsWith("0001-");

// ago returns the seconds from then to now, by the clock of the bridge.
export const ago = (then, now) => (new Date(now) - new Date(then)) / 1000;
