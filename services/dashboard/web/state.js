// What the viewer chose. It lives in the address, so that back, forward and sharing work; what is not in there has its
// default. The chosen zone is written too when a link is to show the same hours to everybody.
import { moved, today } from './format.js';

export const viewerZone = () => Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC';

const filters = ['region', 'country', 'category', 'product'];
const date = /^\d{4}-\d\d-\d\d$/;
const ranges = ['24h', 'today', 'yesterday', '7d', '30d', '60d', 'custom'];

export const grainFor = (range) => (range === '30d' || range === '60d' ? 'day' : 'hour');

export function read() {
  const q = new URLSearchParams(location.search);
  const state = { table: q.get('table') === '1', currency: q.get('currency') ?? '', tz: zoneOr(q.get('tz'), viewerZone()) };
  for (const f of filters) state[f] = q.get(f) ?? '';
  state.range = ranges.includes(q.get('range')) ? q.get('range') : '24h';
  state.first = date.test(q.get('first')) ? q.get('first') : today(state.tz, -6);
  state.last = date.test(q.get('last')) ? q.get('last') : today(state.tz);
  state.grain = ['hour', 'day'].includes(q.get('grain')) ? q.get('grain') : grainFor(state.range);
  return state;
}

function zoneOr(name, otherwise) {
  if (!name) return otherwise;
  try {
    new Intl.DateTimeFormat('en', { timeZone: name });
    return name;
  } catch {
    return otherwise;
  }
}

export function write(state, replace = false) {
  const q = new URLSearchParams();
  if (state.range !== '24h') q.set('range', state.range);
  if (state.range === 'custom') {
    q.set('first', state.first);
    q.set('last', state.last);
  }
  if (state.grain !== grainFor(state.range)) q.set('grain', state.grain);
  for (const f of filters) if (state[f]) q.set(f, state[f]);
  if (state.currency) q.set('currency', state.currency);
  if (state.tz !== viewerZone()) q.set('tz', state.tz);
  if (state.table) q.set('table', '1');
  const text = q.toString();
  const address = location.pathname + (text ? '?' + text : '');
  if (address !== location.pathname + location.search) history[replace ? 'replaceState' : 'pushState'](null, '', address);
}

// The question to the API: from and to are local dates, which the server reads in the zone;
// without to, it ends with the running hour.
export function question(state) {
  const q = new URLSearchParams({ tz: state.tz });
  const span = (from, to) => { q.set('from', from); if (to) q.set('to', to); };
  switch (state.range) {
    case 'today': span(today(state.tz)); break;
    case 'yesterday': span(today(state.tz, -1), today(state.tz)); break;
    case '7d': span(today(state.tz, -6)); break;
    case '30d': span(today(state.tz, -29)); break;
    case '60d': span(today(state.tz, -59)); break;
    case 'custom': span(state.first, moved(state.last, 1)); break;
    default:
  }
  for (const f of filters) if (state[f]) q.set(f, state[f]);
  return q;
}
