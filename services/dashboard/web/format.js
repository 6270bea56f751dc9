// How numbers and times are shown: in the viewer's language, in the chosen zone.
const cached = new Map();

function formatter(kind, options) {
  const key = kind.name + JSON.stringify(options);
  if (!cached.has(key)) cached.set(key, new kind(undefined, options));
  return cached.get(key);
}

// Amounts arrive as decimal strings with the currency's digits, and stay exact: Intl reads strings.
export function money(amount, currency) {
  const digits = (amount.split('.')[1] ?? '').length;
  try {
    return formatter(Intl.NumberFormat, { style: 'currency', currency, minimumFractionDigits: digits, maximumFractionDigits: digits }).format(amount);
  } catch {
    return `${amount} ${currency}`; // a code that is no currency
  }
}

export function shortMoney(value, currency) {
  try {
    return formatter(Intl.NumberFormat, { style: 'currency', currency, notation: 'compact', maximumFractionDigits: 1, minimumFractionDigits: 0 }).format(value);
  } catch {
    return count(value);
  }
}

export const count = (value) => formatter(Intl.NumberFormat, {}).format(value);

// A change in percent, or null where there is nothing to compare with.
export function change(now, before) {
  const [a, b] = [Number(now), Number(before)];
  if (!(b > 0)) return null;
  const share = (a - b) / b;
  if (Math.abs(share) >= 10) return { share, text: formatter(Intl.NumberFormat, { maximumFractionDigits: 0 }).format(a / b) + ' times' };
  return { share, text: formatter(Intl.NumberFormat, { style: 'percent', maximumFractionDigits: 1, signDisplay: 'exceptZero' }).format(share) };
}

const inZone = (zone, options) => formatter(Intl.DateTimeFormat, { timeZone: zone, ...options });

// A time's own offset is the zone's at that moment; the page shows what the server said, so that both agree.
const parts = (stamp) => {
  const [, date, clock, offset] = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d)[^Z+-]*(Z|[+-]\d\d:\d\d)$/.exec(stamp);
  return { date, clock, offset: offset === 'Z' ? '+00:00' : offset };
};

export const clock = (stamp) => parts(stamp).clock;
export const dateOf = (stamp) => parts(stamp).date;
export const offsetOf = (stamp) => parts(stamp).offset;

// The date on the clock that the stamp shows, as people write it.
export function day(stamp, options = { weekday: 'short', day: 'numeric', month: 'short' }) {
  return inZone('UTC', options).format(new Date(dateOf(stamp) + 'T00:00:00Z'));
}

export const second = (date, zone) => inZone(zone, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' }).format(date);
export const dayAndSecond = (date, zone) =>
  inZone(zone, { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' }).format(date);

// Today's date in the zone, as 2026-01-31, moved by days.
export function today(zone, days = 0) {
  const shown = Object.fromEntries(inZone(zone, { year: 'numeric', month: '2-digit', day: '2-digit', calendar: 'iso8601', numberingSystem: 'latn' })
    .formatToParts(new Date()).map((p) => [p.type, p.value]));
  return moved(`${shown.year}-${shown.month}-${shown.day}`, days);
}

export function moved(date, days) {
  const d = new Date(date + 'T00:00:00Z');
  d.setUTCDate(d.getUTCDate() + days);
  return d.toISOString().slice(0, 10);
}

export function ago(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}
