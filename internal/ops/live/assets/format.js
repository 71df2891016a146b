// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (n) => whole.format(n);

export function rate(n) {
  if (n === undefined || Number.isNaN(n)) return "–";
  if (n >= 1e6) return (n / 1e6).toFixed(2) + "M";
  if (n >= 1e5) return (n / 1e3).toFixed(0) + "k";
  return n < 10 && n > 0 ? n.toFixed(1) : count(n);
}

export function short(n) {
  if (n >= 1e9) return (n / 1e9).toFixed(1) + "G";
  if (n >= 1e6) return (n / 1e6).toFixed(1) + "M";
  if (n >= 1e5) return (n / 1e3).toFixed(0) + "k";
  return count(n);
}

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return (i === 0 || n >= 100 ? n.toFixed(0) : n.toFixed(1)) + " " + units[i];
}

export function seconds(s) {
  if (s === undefined || s === null) return "–";
  if (s < 0.001) return (s * 1000).toFixed(2) + " ms";
  if (s < 1) return (s * 1000).toFixed(s < 0.1 ? 1 : 0) + " ms";
  if (s < 60) return s.toFixed(1) + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + Math.floor(s % 60) + " s";
  if (s < 172800) return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
  return Math.floor(s / 86400) + " days";
}

const pad = (n, width = 2) => String(n).padStart(width, "0");

export function clock(text) {
  const t = new Date(text);
  return pad(t.getHours()) + ":" + pad(t.getMinutes()) + ":" + pad(t.getSeconds());
}

export const clockMillis = (text) => clock(text) + "." + pad(new Date(text).getMilliseconds(), 3);

export function stamp(text) {
  if (!text) return "";
  const t = new Date(text);
  const ahead = -t.getTimezoneOffset(), zone = (ahead < 0 ? "-" : "+") + pad(Math.floor(Math.abs(ahead) / 60)) + ":" + pad(Math.abs(ahead) % 60);
  return t.getFullYear() + "-" + pad(t.getMonth() + 1) + "-" + pad(t.getDate()) + " " + clockMillis(text) + " " + zone;
}

// ago returns how long before now a time was, by the bridge's clock.
export const ago = (then, now) => (new Date(now) - new Date(then)) / 1000;

export const statusWords = {
  delivered: ["Delivered", "ok"], in_flight: ["In flight", "info"], retrying: ["Retrying", "warn"],
  rejected: ["Rejected", "bad"], filtered: ["Filtered", "idle"], abandoned: ["Again", "idle"],
};
