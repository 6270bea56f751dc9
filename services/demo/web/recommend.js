// "Recommended for you": asked for after each view and each change of the cart.
// The answer holds product ids only; names come from the store.
import { getByCodes } from '/shop/api.js';
import { card } from '/shop/card.js';
import { byId } from '/shop/dom.js';
import { browseHistory, currency, session } from '/shop/session.js';

let endpoint = null;
let turn = 0;
let failures = 0;
let quietUntil = 0;

export function startRecommendations(base) {
  endpoint = `${base}/v1/recommendations`;
}

export async function recommend() {
  if (!endpoint || Date.now() < quietUntil) return;
  const mine = ++turn;
  try {
    const request = { session_id: session.id, limit: 6, browse_history: browseHistory() };
    if (session.customer) request.customer_number = session.customer.customer_number;
    const response = await fetch(endpoint, {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(request),
    });
    if (!response.ok) throw new Error('no recommendations');
    const answer = await response.json();
    const products = await getByCodes(answer.recommended_items.map((i) => i.id), currency());
    failures = 0;
    if (mine === turn) show(products, answer);
  } catch {
    failures += 1;
    if (failures >= 2) quietUntil = Date.now() + 30_000; // a service that is away is not asked at every click
    if (mine === turn) byId('recommended').hidden = true;
  }
}

function show(products, answer) {
  const reasons = new Map(answer.recommended_items.map((i) => [i.id, i.reason]));
  byId('recommended-list').replaceChildren(...products.map((p) => card(p, reasons.get(p.product_code))));
  byId('recommended-level').textContent = `Level: ${answer.level}${answer.model_version ? `, model ${answer.model_version}` : ''}`;
  byId('recommended').hidden = products.length === 0;
}
