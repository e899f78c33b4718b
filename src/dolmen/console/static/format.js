// Numbers as people read them. What is not known is a dash, never a zero.

export const UNKNOWN = "–";

export const isKnown = (value) => typeof value === "number" && Number.isFinite(value);

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 0.42, 7.3, 128, 1,204, 12.9k, 3.41M: never more than five signs. */
export function count(value) {
  if (!isKnown(value)) return UNKNOWN;
  const size = Math.abs(value);
  if (size >= 999_500_000) return `${(value / 1e9).toFixed(size >= 99.95e9 ? 0 : 1)}G`;
  if (size >= 999_500) return `${(value / 1e6).toFixed(size >= 9.995e6 ? 1 : 2)}M`;
  if (size >= 9_999.5) return `${(value / 1e3).toFixed(size >= 99_950 ? 0 : 1)}k`;
  if (size >= 99.95 || Number.isInteger(value)) return grouped.format(value);
  return value.toFixed(size >= 9.995 ? 1 : size >= 0.9995 ? 1 : 2);
}

export const exact = (value) => (isKnown(value) ? grouped.format(value) : UNKNOWN);

export function seconds(value) {
  if (!isKnown(value)) return UNKNOWN;
  if (value < 0) return "0 s"; // Two clocks may differ by a hair.
  if (value < 0.0995) return `${Math.round(value * 1000)} ms`;
  if (value < 9.95) return `${value.toFixed(value < 0.995 ? 2 : 1)} s`;
  if (value < 119.5) return `${Math.round(value)} s`;
  if (value < 7170) return `${Math.round(value / 60)} min`;
  if (value < 172_000) return `${Math.round(value / 3600)} h`;
  return `${Math.round(value / 86_400)} days`;
}

export function milliseconds(value) {
  if (!isKnown(value)) return UNKNOWN;
  if (value >= 9950) return seconds(value / 1000);
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ms`;
}

export function bytes(value) {
  if (!isKnown(value)) return UNKNOWN;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value < 9.95 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export const score = (value) => (isKnown(value) ? value.toFixed(4) : UNKNOWN);

export function percent(value) {
  if (!isKnown(value)) return UNKNOWN;
  const hundredths = value * 100;
  if (hundredths > 0 && hundredths < 0.95) return `${hundredths.toFixed(1)} %`;
  return `${Math.round(hundredths)} %`;
}

/** 19:04:31, in the reader's own time zone. */
export const clock = (milliseconds) => new Date(milliseconds).toLocaleTimeString("en-GB");
