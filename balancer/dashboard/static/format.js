// Format: numbers with their units, and times, as people read them. Pure.

export const NONE = "–";

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

/** Bytes as MiB or GiB. */
export function bytes(count) {
  if (!known(count)) return NONE;
  const mib = count / 2 ** 20;
  return mib < 1000 ? `${mib.toFixed(0)} MiB` : `${digits(mib / 1024)} GiB`;
}

/** Three digits that matter. */
export function digits(value) {
  if (!known(value)) return NONE;
  return value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(value >= 10 ? 0 : 1);
}

export function seconds(value) {
  if (!known(value)) return NONE;
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 99.5) return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} s`;
  return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}

export const speed = (value) => (known(value) ? `${digits(value)} tok/s` : NONE);

export const percent = (share) => (known(share) ? `${Math.round(100 * share)} %` : NONE);

export const count = (value) => (known(value) ? value.toLocaleString("en").replaceAll(",", "\u202f") : NONE);

/** `1 slot`, `2 slots`. */
export const many = (number, thing) => `${number} ${thing}${number === 1 ? "" : "s"}`;

export const clock = (unix) => new Date(unix * 1000).toLocaleTimeString("en-GB");

export const day = (unix) => (unix ? new Date(unix * 1000).toLocaleDateString("en-CA") : NONE);

/** The label of a variant: `Q4_1` of `model:Q4_1`. */
export const label = (variant) => variant.split(":")[1] ?? variant;
