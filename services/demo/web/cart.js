import { checkout, getByCodes } from '/shop/api.js';
import { track } from '/shop/activity.js';
import { el, money, say } from '/shop/dom.js';
import { currency, emptyCart, session, setQuantity } from '/shop/session.js';

// The cart, and the order that comes out of it. changed is called when what is in
// the cart has changed, to show it again.
export async function cartView(changed) {
  if (session.cart.length === 0) {
    return { title: 'Cart', nodes: [
      el('h1', { tabindex: '-1' }, 'Your cart is empty'),
      el('p', {}, el('a', { href: '#/' }, 'Look around the shop'))] };
  }
  const products = await getByCodes(session.cart.map((i) => i.product_code), currency());
  const lines = products.map((p) => ({ p, quantity: session.cart.find((i) => i.product_code === p.product_code).quantity }));
  const total = lines.reduce((sum, l) => sum + Number(l.p.price) * l.quantity, 0);
  const problem = el('p', { class: 'problem', role: 'alert' });
  const order = el('button', { class: 'primary', type: 'button', onclick: () => buy(order, problem, changed) }, 'Check out');
  return { title: 'Cart', nodes: [
    el('h1', { tabindex: '-1' }, 'Your cart'),
    el('p', { class: 'lead' }, session.customer ? `You buy as customer ${session.customer.customer_number}.` : 'You buy as a visitor.'),
    table(lines, changed),
    problem,
    el('div', { class: 'total' }, el('span', {}, 'Total ', el('strong', {}, money(total, currency()))), order)] };
}

function table(lines, changed) {
  const row = ({ p, quantity }) => el('tr', {},
    el('th', { scope: 'row' }, el('a', { href: `#/product/${encodeURIComponent(p.product_code)}` }, p.product_name)),
    el('td', { class: 'number' }, money(p.price, p.currency)),
    el('td', {}, el('input', { type: 'number', min: 1, max: 99, value: quantity, 'aria-label': `Quantity of ${p.product_name}`,
      onchange: (e) => edit(p, quantity, e.target, changed) })),
    el('td', { class: 'number' }, money(Number(p.price) * quantity, p.currency)),
    el('td', {}, el('button', { type: 'button', 'aria-label': `Remove ${p.product_name}`, onclick: () => {
      setQuantity(p.product_code, 0);
      track('remove_from_cart', p.product_code, quantity);
      say(`${p.product_name} was taken out of the cart.`);
      changed();
    } }, 'Remove')));
  return el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Products in the cart' }, el('table', {},
    el('thead', {}, el('tr', {}, ...['Product', 'Price', 'Quantity', 'Sum'].map((t) => el('th', { scope: 'col', class: t === 'Price' || t === 'Sum' ? 'number' : undefined }, t)),
      el('td', {}))),
    el('tbody', {}, ...lines.map(row))));
}

function edit(product, before, input, changed) {
  const after = Math.round(Number(input.value));
  if (!(after >= 1 && after <= 99)) {
    input.value = before;
    say('A quantity is a number from 1 to 99.');
    return;
  }
  setQuantity(product.product_code, after);
  if (after > before) track('add_to_cart', product.product_code, after - before);
  if (after < before) track('remove_from_cart', product.product_code, before - after);
  changed();
}

async function buy(button, problem, changed) {
  button.disabled = true;
  problem.textContent = '';
  track('checkout');
  try {
    const order = { session_id: session.id, items: session.cart };
    if (session.customer) order.customer_number = session.customer.customer_number;
    const done = await checkout(order);
    for (const item of session.cart) track('purchase', item.product_code, item.quantity);
    emptyCart();
    say(`Thank you. Order ${done.order_number} over ${money(done.total, done.currency)} is in.`);
    changed();
  } catch (error) {
    const field = error.problem?.errors?.[0]?.location?.match(/items\[(\d+)\]/);
    const which = field && session.cart[Number(field[1])]?.product_code;
    problem.textContent = (which ? `${which}: ` : '') + error.message;
    button.disabled = false;
  }
}
