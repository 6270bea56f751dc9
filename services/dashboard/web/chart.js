// The bar chart: one bar for each period, hatched while it is not over. One stop for the keyboard; arrows go along the bars.
import { byId, el, setText, svg } from './dom.js';
import { clock, count, dateOf, day, money, offsetOf, shortMoney } from './format.js';

const height = 300;
const pad = { top: 26, right: 6, bottom: 42, left: 62 };

// Round steps that cut the range into about four.
function scale(low, high) {
  const raw = (high - low) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= raw);
  const ticks = [];
  for (let t = Math.floor(low / step); t * step < high + step; t++) ticks.push(t * step);
  return ticks;
}

export const periodName = (row, grain) => {
  if (grain === 'day') return day(row.start) + (row.cut ? `, ${clock(row.start)}–${clock(row.end)}` : '');
  return `${day(row.start)}, ${clock(row.start)}–${clock(row.end)}${row.twice ? ` (UTC${offsetOf(row.start)})` : ''}`;
};

export function describe(row, state) {
  const text = [`${money(row.net, row.currency)} net`];
  if (row.orders !== undefined) text.push(`${count(row.orders)} ${row.orders === 1 ? 'order' : 'orders'}`);
  text.push(`${count(row.units)} units`);
  if (Number(row.cancelled) !== 0) text.push(`${money(row.cancelled, row.currency)} cancelled`);
  return { title: periodName(row, state.grain), text, note: row.note };
}

export class Chart {
  constructor(box) {
    this.box = box;
    this.tip = el('div', { class: 'tip', hidden: true, 'aria-hidden': 'true' });
    this.at = -1;
    this.shown = -1;
    box.append(this.tip);
    new ResizeObserver(() => this.rows && this.draw(this.rows, this.state)).observe(box);
  }

  draw(rows, state) {
    [this.rows, this.state] = [rows, state];
    const width = Math.max(280, Math.floor(this.box.clientWidth));
    const key = JSON.stringify([width, state, rows]);
    if (key === this.drawn) return;
    this.drawn = key;
    const focused = this.box.contains(document.activeElement) ? this.at : -1;
    const narrow = width < 520;
    const left = narrow ? 50 : pad.left;
    const values = rows.map((r) => Number(r.net));
    const ticks = scale(Math.min(0, ...values), Math.max(0, ...values));
    const [low, high] = [ticks[0], ticks.at(-1)];
    const y = (v) => pad.top + (height - pad.top - pad.bottom) * (1 - (v - low) / (high - low));
    const slot = (width - left - pad.right) / rows.length;
    const x = (i) => left + i * slot;
    const picture = svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'group', 'aria-label': this.summary(rows, state) });
    picture.append(svg('defs', {}, svg('pattern', { id: 'hatch', width: 7, height: 7, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
      svg('rect', { width: 7, height: 7, class: 'hatch-back' }), svg('rect', { width: 3, height: 7, class: 'hatch-line' }))));
    for (const t of ticks) {
      picture.append(svg('line', { x1: left, x2: width - pad.right, y1: y(t), y2: y(t), class: t === 0 ? 'axis' : 'grid' }),
        svg('text', { x: left - 8, y: y(t) + 4, class: 'label end', 'aria-hidden': 'true' }, shortMoney(t, rows[0].currency)));
    }
    this.label(picture, rows, x, slot, narrow);
    const gap = slot > 5 ? Math.min(6, slot * 0.22) : 0;
    this.bars = rows.map((row, i) => {
      const v = values[i];
      const told = describe(row, state);
      const tall = Math.max(v === 0 ? 0 : 1.5, Math.abs(y(v) - y(0)));
      const bar = svg('g', { class: 'bar' + (row.note ? ' sofar' : ''), role: 'img', tabindex: -1, 'data-index': i,
        'aria-label': `${told.title}: ${told.text.join(', ')}${told.note ? `, ${told.note}` : ''}` },
      svg('rect', { x: x(i), y: pad.top, width: slot, height: height - pad.top - pad.bottom, class: 'hit' }),
      svg('rect', { x: x(i) + gap / 2, y: v < 0 ? y(0) : y(0) - tall, width: Math.max(0.5, slot - gap), height: tall, rx: Math.min(3, slot / 6), class: 'ink' }));
      picture.append(bar);
      return bar;
    });
    const open = rows.findLastIndex((r) => r.note === 'so far');
    if (open >= 0) {
      const end = x(open) + slot / 2 > width - 34;
      picture.append(svg('text', { x: end ? x(open) + slot : x(open) + slot / 2, y: Math.min(y(0), y(values[open])) - 8, class: 'sofar-label ' + (end ? 'end' : 'middle'), 'aria-hidden': 'true' }, 'so far'));
    }
    this.box.querySelector('svg')?.remove();
    this.box.prepend(picture);
    this.listen(picture);
    this.at = Math.min(this.at < 0 ? rows.length - 1 : this.at, rows.length - 1);
    this.bars[this.at].setAttribute('tabindex', 0);
    if (focused >= 0) this.bars[this.at].focus({ preventScroll: true });
    else if (this.shown >= 0 && this.shown < rows.length) this.show(this.shown);
  }

  // Labels below: clock times, and the date where a day begins; as many as there is room for.
  label(picture, rows, x, slot, narrow) {
    const hours = this.state.grain === 'hour';
    const base = height - pad.bottom;
    const step = [1, 2, 3, 4, 6, 12, 24].find((n) => n * slot >= 48);
    let lastDay = -1000;
    rows.forEach((row, i) => {
      const first = i === 0 || dateOf(row.start) !== dateOf(rows[i - 1].start);
      const hour = Number(clock(row.start).slice(0, 2));
      if (hours && step && hour % step === 0 && clock(row.start).endsWith(':00') && slot * step >= 48) {
        picture.append(svg('text', { x: x(i) + slot / 2, y: base + 17, class: 'label middle', 'aria-hidden': 'true' }, clock(row.start)));
      }
      if (first && x(i) - lastDay >= (narrow ? 62 : 84) && x(i) < x(rows.length) - 40) {
        lastDay = x(i);
        if (hours && i > 0) picture.append(svg('line', { x1: x(i), x2: x(i), y1: pad.top, y2: base + 24, class: 'grid' }));
        picture.append(svg('text', { x: hours ? x(i) + 3 : x(i) + slot / 2, y: base + (hours ? 34 : 19), class: 'label strong ' + (hours || slot < 40 ? '' : 'middle'), 'aria-hidden': 'true' },
          day(row.start, hours && !narrow ? undefined : { day: 'numeric', month: 'short' })));
      }
    });
  }

  summary(rows, state) {
    const best = rows.reduce((a, b) => (Number(b.net) > Number(a.net) ? b : a));
    return `Net sales by ${state.grain} in ${rows[0].currency}, ${rows.length} bars. The highest is ${periodName(best, state.grain)} with ${money(best.net, best.currency)}. Use the arrow keys to go along the bars.`;
  }

  listen(picture) {
    picture.addEventListener('pointermove', (event) => {
      const bar = event.target.closest('.bar');
      if (bar) this.show(Number(bar.dataset.index));
    });
    picture.addEventListener('pointerleave', () => this.hide());
    picture.addEventListener('focusin', (event) => { const bar = event.target.closest('.bar'); if (bar) this.reach(Number(bar.dataset.index)); });
    picture.addEventListener('focusout', () => this.hide());
    picture.addEventListener('keydown', (event) => {
      const last = this.bars.length - 1;
      const to = { ArrowLeft: this.at - 1, ArrowRight: this.at + 1, Home: 0, End: last, PageUp: this.at - 24, PageDown: this.at + 24 }[event.key];
      if (event.key === 'Escape') this.hide();
      if (to === undefined) return;
      event.preventDefault();
      this.bars[Math.max(0, Math.min(last, to))].focus({ preventScroll: true });
    });
  }

  // Makes a bar the one that the keyboard stops at.
  reach(i) {
    this.bars[this.at].setAttribute('tabindex', -1);
    this.at = i;
    this.bars[i].setAttribute('tabindex', 0);
    this.show(i);
  }

  show(i) {
    this.shown = i;
    this.bars.forEach((b, n) => b.classList.toggle('on', n === i));
    const told = describe(this.rows[i], this.state);
    this.tip.replaceChildren(el('strong', {}, told.title), ...told.text.map((line) => el('span', {}, line)), told.note ? el('em', {}, told.note) : '');
    this.tip.hidden = false;
    const bar = this.bars[i].querySelector('.hit').getBoundingClientRect();
    const box = this.box.getBoundingClientRect();
    const half = this.tip.offsetWidth / 2;
    const middle = Math.max(half, Math.min(box.width - half, bar.left + bar.width / 2 - box.left));
    this.tip.style.transform = `translate(${Math.round(middle - half)}px, 0)`;
  }

  hide() {
    this.shown = -1;
    this.tip.hidden = true;
    this.bars?.forEach((b) => b.classList.remove('on'));
  }
}

export const about = (text) => setText(byId('chart-about'), text);
