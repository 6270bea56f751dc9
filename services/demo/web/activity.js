// Tells collect what the visitor does. Nothing waits for it, and a visitor who
// asks not to be tracked (Global Privacy Control) is not.
import { session, uuid } from '/shop/session.js';

let endpoint = null;
let waiting = [];
let timer = null;

export function startActivity(base) {
  endpoint = `${base}/v1/activity`;
  addEventListener('pagehide', flush);
}

export function track(action, code, quantity) {
  if (navigator.globalPrivacyControl) return;
  const event = {
    event_id: uuid(), event_time: new Date().toISOString(), session_id: session.id, action,
    page_url: location.href,
  };
  if (session.customer) event.customer_number = session.customer.customer_number;
  else event.anonymous_id = session.anonymous;
  if (code) event.product_code = code;
  if (quantity) event.quantity = quantity;
  waiting = [...waiting, event].slice(-100);
  timer ??= setTimeout(flush, 400);
}

function flush() {
  clearTimeout(timer);
  timer = null;
  if (!endpoint || waiting.length === 0) return;
  const body = JSON.stringify({ events: waiting });
  waiting = [];
  fetch(endpoint, { method: 'POST', keepalive: true, headers: { 'Content-Type': 'application/json' }, body })
    .catch(() => { /* collect is away: the shop goes on */ });
}
