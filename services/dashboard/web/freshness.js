// The line that says up to when the numbers are complete. It turns to a warning when they are late, when tables are
// stopped, or when there is no answer at all.
import { byId, byTest, say, setText } from './dom.js';
import { ago, dayAndSecond, second } from './format.js';

const lateAfter = 60; // seconds

export class Freshness {
  constructor() {
    this.zone = () => 'UTC';
    this.valid = null;
    this.incomplete = [];
    this.reason = '';
    this.known = false;
    setInterval(() => this.show(), 1000);
  }

  // Takes what an answer or an event says.
  know({ valid_through: valid, incomplete }) {
    if (valid !== undefined && (valid !== null || !this.valid)) this.valid = valid === null ? null : new Date(valid);
    if (incomplete) this.incomplete = incomplete;
    this.known = true;
    this.show();
  }

  trouble(reason) {
    this.reason = reason;
    this.show();
  }

  show() {
    if (!this.known && !this.reason) return;
    const age = this.valid ? Math.max(0, (Date.now() - this.valid.getTime()) / 1000) : 0;
    const late = this.valid && age >= lateAfter;
    const status = this.reason ? 'unknown' : this.incomplete.length ? 'incomplete' : !this.valid ? 'unknown' : late ? 'late' : 'fresh';
    const box = byId('freshness');
    const form = age > 72000 ? dayAndSecond : second;
    setText(byTest('complete-through'), this.valid ? `Complete through ${form(this.valid, this.zone())}` : 'Nothing is known to be complete yet');
    setText(byId('ago'), this.valid ? ago(age) : '');
    const notice = byId('notice');
    const text = {
      fresh: '',
      unknown: this.reason ? `${this.reason}${/[.!]$/.test(this.reason) ? '' : '.'}${this.valid ? ' What you see is the last that was known.' : ''}` : '',
      late: 'The numbers are late: sales after the time above are not all in yet. They are added by themselves, to their own hours.',
      incomplete: `Changes of these are missing for now: ${this.incomplete.join(', ')}. Numbers may be too low or too high until they are read again.`,
    }[status];
    notice.hidden = text === '';
    setText(notice, text);
    if (box.dataset.status !== status) {
      if (box.dataset.status !== 'unknown' && status === 'fresh') say('The numbers are up to date again.');
      box.dataset.status = status;
    }
  }
}
