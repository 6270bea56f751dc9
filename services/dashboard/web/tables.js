// The tables: the numbers behind the chart, and the lists of the best.
import { el } from './dom.js';
import { count, money } from './format.js';
import { periodName } from './chart.js';

const number = (text) => el('td', { class: 'number' }, text);
const heading = (text, numeric = true) => el('th', { scope: 'col', class: numeric ? 'number' : undefined }, text);

export function periods(rows, state) {
  const orders = rows[0]?.orders !== undefined;
  const head = [heading(state.grain === 'day' ? 'Day' : 'Hour', false), heading('Net'), heading('Gross'), heading('Cancelled'), heading('Units'), heading('Lines')];
  if (orders) head.push(heading('Orders'), heading('Cancelled orders'));
  const body = rows.toReversed().map((row) => {
    const line = el('tr', { 'data-start': row.start },
      el('th', { scope: 'row' }, periodName(row, state.grain), row.note ? el('span', { class: 'tag' }, row.note) : ''),
      number(money(row.net, row.currency)), number(money(row.gross, row.currency)), number(money(row.cancelled, row.currency)), number(count(row.units)), number(count(row.lines)));
    if (orders) line.append(number(count(row.orders)), number(count(row.cancelled_orders)));
    return line;
  });
  return el('table', {}, el('caption', { class: 'unseen' }, `Sales by ${state.grain} in ${rows[0]?.currency ?? ''}, newest first`),
    el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...body));
}

// The best, with a bar that shows the share of the first. A click on a name filters by it.
export function best(list, name, value, key, title) {
  if (list.length === 0) return el('p', { class: 'empty small' }, 'Nothing sold in this selection.');
  const top = Math.max(...list.map((row) => Number(row.net)), 1e-9);
  const orders = list[0].orders !== undefined;
  const body = list.map((row) => {
    const meter = el('span', { class: 'meter', 'aria-hidden': 'true' });
    meter.style.width = `${Math.max(0, 100 * Number(row.net) / top)}%`;
    return el('tr', {},
      el('th', { scope: 'row' }, el('button', { type: 'button', class: 'link', 'data-filter': key, 'data-value': value(row), title: 'Show only this' }, name(row)), key === 'product' && name(row) !== value(row) ? el('span', { class: 'code' }, ' ' + value(row)) : '', el('span', { class: 'track' }, meter)),
      number(money(row.net, row.currency)), number(count(row.units)), orders ? number(count(row.orders)) : null);
  });
  return el('table', { class: 'best' }, el('caption', { class: 'unseen' }, title),
    el('thead', {}, el('tr', {}, heading(key === 'product' ? 'Product' : 'Region', false), heading('Net'), heading('Units'), orders ? heading('Orders') : null)), el('tbody', {}, ...body));
}
