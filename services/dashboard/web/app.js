// The page: reads the address, asks the API, shows the answer, and asks again when the live stream says that something
// has changed.
import * as api from './api.js';
import { about, Chart } from './chart.js';
import { byId, byTest, el, say, setText } from './dom.js';
import { change, clock, count, dateOf, day, money } from './format.js';
import { Freshness } from './freshness.js';
import { grainFor, question, read, viewerZone, write } from './state.js';
import * as tables from './tables.js';

const page = document.documentElement;
const choices = ['region', 'country', 'category', 'product'];
const chart = new Chart(byId('chart'));
const freshness = new Freshness();
let state = read();
let dimensions = null;
let pending = null; // the question under way
let lastAsked = 0;
let lastTook = 0;
let timer = 0;
let failures = 0;

// ---- The filters ----

function fill(select, options, chosen) {
  if (chosen && !options.some(([value]) => value === chosen)) options.push([chosen, chosen]);
  const key = JSON.stringify(options);
  if (select.dataset.options !== key) {
    select.dataset.options = key;
    select.replaceChildren(...options.map(([value, text]) => el('option', { value }, text)));
  }
  select.value = chosen;
}

const unique = (list) => [...new Set(list)];

function showFilters(currencies = []) {
  const d = dimensions ?? { regions: [], countries: [], categories: [], products: [], currencies: [] };
  const countries = unique(d.countries.filter((c) => !state.region || c.region === state.region).map((c) => c.country)).sort((a, b) => a.localeCompare(b));
  const products = d.products.filter((p) => !state.category || p.category === state.category);
  fill(byId('region'), [['', 'All regions'], ...d.regions.map((r) => [r, r])], state.region);
  fill(byId('country'), [['', 'All countries'], ...countries.map((c) => [c, c])], state.country);
  fill(byId('category'), [['', 'All categories'], ...d.categories.map((c) => [c, c])], state.category);
  fill(byId('product'), [['', 'All products'], ...products.map((p) => [p.product_code, `${p.product_name} · ${p.product_code}`])], state.product);
  fill(byId('currency'), unique([...d.currencies, ...currencies]).sort().map((c) => [c, c]), shownCurrency);
  byId('range').value = state.range;
  byId('grain').value = state.grain;
  for (const label of document.querySelectorAll('.custom')) label.hidden = state.range !== 'custom';
  byId('first').value = state.first;
  byId('last').value = state.last;
  byId('reset').hidden = !choices.some((c) => state[c]);
}

function zones() {
  const mine = viewerZone();
  const all = Intl.supportedValuesOf?.('timeZone') ?? [];
  const options = unique([mine, 'UTC', ...all]).map((z) => [z, z === mine ? `${z} (yours)` : z]);
  fill(byId('tz'), options, state.tz);
}

let shownCurrency = state.currency;

function chosen({ target }) {
  const before = state.range;
  state = { ...state, ...Object.fromEntries(['range', 'grain', 'tz', ...choices].map((id) => [id, byId(id).value])) };
  if (target.id === 'currency') state.currency = target.value;
  if (state.range !== before) state.grain = grainFor(state.range);
  if (byId('first').value) state.first = byId('first').value;
  if (byId('last').value) state.last = byId('last').value;
  if (state.last < state.first) state.last = state.first;
  const country = dimensions?.countries.some((c) => c.country === state.country && c.region === state.region);
  if (state.region && state.country && dimensions && !country) state.country = '';
  const product = dimensions?.products.some((p) => p.product_code === state.product && p.category === state.category);
  if (state.category && state.product && dimensions && !product) state.product = '';
  write(state);
  changed();
}

function changed() {
  shownCurrency = state.currency || shownCurrency;
  showFilters();
  page.dataset.state = 'loading';
  refresh(true);
}

// ---- Asking ----

async function refresh(asked = false) {
  clearTimeout(timer);
  timer = 0;
  pending?.abort();
  const mine = new AbortController();
  pending = mine;
  lastAsked = performance.now();
  const q = question(state);
  try {
    const [sales, summary] = await Promise.all([
      api.get(`/v1/sales?${withGrain(q)}`, mine.signal), api.get(`/v1/sales/summary?${q}`, mine.signal),
      dimensions ? null : api.get('/v1/dimensions', mine.signal).then((d) => { dimensions = d; }),
    ]);
    if (pending !== mine) return;
    pending = null;
    failures = 0;
    lastTook = performance.now() - lastAsked;
    freshness.know(sales);
    freshness.trouble('');
    show(sales, summary);
    page.dataset.state = 'ready';
    if (asked) say(`${byTest('net').textContent} net. ${byTest('complete-through').textContent}.`);
  } catch (error) {
    if (error.name === 'AbortError' || pending !== mine) return;
    pending = null;
    failures++;
    page.dataset.state = 'error';
    freshness.trouble(error.message);
    if (!(error instanceof api.Problem)) throw error;
    // A question that is wrong stays wrong; anything else may pass.
    if (error.status !== 422) later(Math.min(1000 * 2 ** failures, 15000));
  }
}

function withGrain(q) {
  const all = new URLSearchParams(q);
  all.set('grain', state.grain);
  return all;
}

// Asks again, but not while a question is under way, and never so often that asking is all there is.
function later(least = 0) {
  if (timer) return;
  const rest = Math.max(1000, 5 * lastTook) - (performance.now() - lastAsked);
  timer = setTimeout(() => {
    timer = 0;
    if (document.hidden) return; // asked when it is looked at again
    if (pending) later();
    else refresh();
  }, Math.max(0, least, rest));
}

// ---- Showing ----

function show(sales, summary) {
  const busiest = sales.totals.toSorted((a, b) => b.lines - a.lines)[0]?.currency;
  shownCurrency = state.currency || busiest || shownCurrency || dimensions?.currencies[0] || '';
  showFilters(sales.totals.map((t) => t.currency));
  const mine = (list) => list.filter((entry) => entry.currency === shownCurrency);
  const rows = mine(sales.rows).map((row, i, all) => ({ ...row,
    note: row.partial ? (Date.parse(row.start) > Date.now() ? 'to come' : 'so far') : '',
    cut: state.grain === 'day' && !row.partial && !(clock(row.start) === '00:00' && clock(row.end) === '00:00'),
    twice: [all[i - 1], all[i + 1]].some((other) => other && dateOf(other.start) === dateOf(row.start) && clock(other.start).slice(0, 2) === clock(row.start).slice(0, 2)) }));
  headline(mine(sales.totals)[0], summary.comparison, mine);
  about(`${shownCurrency}, by ${state.grain}, ${day(sales.from)}${dateOf(sales.from) === dateOf(sales.to) ? '' : ` to ${lastDay(sales)}`}, on the clock of ${sales.tz}`);
  const none = rows.length === 0;
  byId('chart').hidden = none;
  byId('empty').hidden = !none;
  if (none) {
    setText(byId('empty'), sales.valid_through === null && sales.totals.length === 0
      ? 'No numbers yet. They appear as soon as the first sales have come in.' : `Nothing was sold${shownCurrency ? ` in ${shownCurrency}` : ''} in this selection.`);
  } else {
    chart.draw(rows, state);
  }
  const orders = rows[0]?.orders !== undefined;
  running(summary.running_hour, mine, orders);
  byId('toggle').setAttribute('aria-expanded', String(state.table));
  setText(byId('toggle'), state.table ? 'Hide table' : 'Show table');
  byId('table').hidden = !state.table || none;
  if (state.table) put(byId('table'), rows, () => tables.periods(rows, state));
  put(byId('products'), mine(summary.top_products), (list) =>
    tables.best(list, (r) => (r.product_name === 'unknown' ? r.product_code : r.product_name), (r) => r.product_code, 'product', `Best products in ${shownCurrency}`));
  put(byId('regions'), mine(summary.top_regions), (list) => tables.best(list, (r) => r.region, (r) => r.region, 'region', `Best regions in ${shownCurrency}`));
  const link = withGrain(question(state));
  if (shownCurrency) link.set('currency', shownCurrency);
  link.set('format', 'csv');
  byId('csv').href = `/v1/sales?${link}`;
}

const lastDay = (sales) => (clock(sales.to) === '00:00' ? day(new Date(Date.parse(dateOf(sales.to)) - 1).toISOString()) : day(sales.to));

// Puts in what is new, and leaves the focus where it was.
function put(box, data, make) {
  const key = JSON.stringify([data, state.grain, state.tz]);
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  const focus = box.contains(document.activeElement) ? document.activeElement.dataset.value : undefined;
  box.replaceChildren(make(data));
  if (focus !== undefined) [...box.querySelectorAll('button')].find((b) => b.dataset.value === focus)?.focus({ preventScroll: true });
}

function headline(total, comparison, mine) {
  const now = comparison ? mine(comparison.current.totals)[0] : undefined;
  const before = comparison ? mine(comparison.before.totals)[0] : undefined;
  const zero = { net: '0', cancelled: '0', units: 0, orders: 0, ...(choices.slice(2).some((c) => state[c]) ? { orders: undefined } : {}) };
  const t = total ?? zero;
  for (const [name, text] of [['net', (v) => money(v, shownCurrency)], ['orders', count], ['units', count], ['cancelled', (v) => money(v, shownCurrency)]]) {
    const node = byTest(name);
    const note = document.querySelector(`[data-change="${name}"]`);
    node.dataset.value = t[name] ?? '';
    if (t[name] === undefined) {
      setText(node, '–');
      setText(note, 'an order can have several products');
      continue;
    }
    setText(node, shownCurrency || name === 'orders' || name === 'units' ? text(t[name]) : '–');
    const c = now && before ? change(now[name], before[name]) : null;
    setText(note, c ? `${c.text} vs. ${comparison.days} days earlier` : '');
  }
}

function running(hour, mine, orders) {
  const now = mine(hour.so_far)[0];
  const box = byId('running');
  const visible = state.range !== 'yesterday' && Boolean(now);
  box.hidden = !visible;
  if (!visible) return;
  const text = [`${clock(hour.start)}–${clock(hour.end)} so far: ${money(now.net, now.currency)}${orders ? `, ${count(now.orders)} ${now.orders === 1 ? 'order' : 'orders'}` : ''}.`];
  const elapsed = hour.elapsed && mine(hour.elapsed.totals)[0];
  if (elapsed) {
    const minutes = Math.round((Date.parse(hour.elapsed.to) - Date.parse(hour.elapsed.from)) / 60000);
    const against = [['yesterday', hour.yesterday], ['a week ago', hour.last_week]]
      .map(([name, other]) => [name, change(elapsed.net, mine(other.totals)[0]?.net ?? 0)]).filter(([, c]) => c).map(([name, c]) => `${c.text} vs. the same minutes ${name}`);
    if (against.length) text.push(`Its first ${minutes} minutes: ${money(elapsed.net, elapsed.currency)}, ${against.join(', ')}.`);
  }
  setText(box, text.join(' '));
}

// ---- Events ----

byId('filters').addEventListener('change', chosen);
byId('filters').addEventListener('submit', (event) => event.preventDefault());
byId('reset').addEventListener('click', () => {
  for (const c of choices) state[c] = '';
  write(state);
  changed();
  byId('region').focus();
});
byId('toggle').addEventListener('click', () => {
  state.table = !state.table;
  write(state, true);
  refresh();
});
document.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-filter]');
  if (!button) return;
  state[button.dataset.filter] = state[button.dataset.filter] === button.dataset.value ? '' : button.dataset.value;
  write(state);
  changed();
});
addEventListener('popstate', () => {
  state = read();
  shownCurrency = state.currency;
  zones();
  changed();
});
document.addEventListener('visibilitychange', () => { if (!document.hidden) later(); });
setInterval(() => { if (performance.now() - lastAsked > 15000) later(); }, 5000); // where live streams are not let through

zones();
showFilters();
freshness.zone = () => state.tz;
refresh();
api.live({
  onSales: () => later(),
  onFreshness: (news) => {
    freshness.know(news);
    if (news.reason) freshness.trouble(news.reason);
    else if (page.dataset.state === 'error') later();
  },
  onState: (open) => { if (open) later(); },
});
