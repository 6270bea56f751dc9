// The shop: routes by the fragment of the address, one view at a time in <main>.
import { getConfig, getCustomers, getLines, getProduct, getProducts } from '/shop/api.js';
import { startActivity, track } from '/shop/activity.js';
import { art } from '/shop/art.js';
import { card } from '/shop/card.js';
import { cartView } from '/shop/cart.js';
import { byId, el, money, say } from '/shop/dom.js';
import { recommend, startRecommendations } from '/shop/recommend.js';
import { currency, inCart, remember, session, setQuantity, signIn } from '/shop/session.js';

let turn = 0;

const href = (...parts) => `#/${parts.map(encodeURIComponent).join('/')}`;

async function listView({ title, lead, query, link, page }) {
  const found = await getProducts({ ...query, page, currency: currency() });
  const pages = found.pages > 1 && el('nav', { class: 'pages', 'aria-label': 'Pages' },
    page > 1 ? el('a', { href: link(page - 1) }, 'Previous') : null,
    el('span', {}, `Page ${page} of ${found.pages}`),
    page < found.pages ? el('a', { href: link(page + 1) }, 'Next') : null);
  return { title, nodes: [
    el('h1', { tabindex: '-1' }, title),
    el('p', { class: 'lead' }, lead ? lead(found.total) : `${found.total} products`),
    el('ul', { class: 'grid' }, ...found.products.map((p) => card(p))),
    pages || null,
  ] };
}

const homeView = (page) => listView({ title: 'Everything in the shop', query: {}, page, link: (n) => href('page', n) });

const lineView = (line, page) => listView({ title: line, query: { line }, page, link: (n) => href('line', line, n) });

function searchView(q, page) {
  if (page === 1) track('search');
  byId('q').value = q;
  return listView({ title: `Results for “${q}”`, query: { q }, page, link: (n) => href('search', q, n),
    lead: (n) => (n ? `${n} products` : 'Nothing found. Try a single word, such as tram or Kanda.') });
}

async function productView(code) {
  const p = await getProduct(code, currency());
  track('view', p.product_code);
  remember(p.product_code);
  const quantity = el('input', { type: 'number', min: 1, max: Math.min(99, Math.max(1, p.quantity_in_stock)), value: 1, required: true });
  const form = el('form', { class: 'buy', onsubmit: (e) => { e.preventDefault(); addToCart(p, Number(quantity.value)); } },
    el('label', {}, 'Quantity', quantity),
    el('button', { class: 'primary', type: 'submit', disabled: p.quantity_in_stock < 1 }, p.quantity_in_stock < 1 ? 'Out of stock' : 'Add to cart'));
  return { title: p.product_name, nodes: [el('article', { class: 'product' },
    art(p.product_line, p.product_code),
    el('div', {},
      el('p', { class: 'small' }, el('a', { href: href('line', p.product_line) }, p.product_line)),
      el('h1', { tabindex: '-1' }, p.product_name),
      el('p', { class: 'price' }, money(p.price, p.currency)),
      el('p', {}, p.product_description),
      el('dl', { class: 'facts' },
        el('dt', {}, 'Scale'), el('dd', {}, p.product_scale),
        el('dt', {}, 'Maker'), el('dd', {}, p.product_vendor),
        el('dt', {}, 'In stock'), el('dd', {}, String(p.quantity_in_stock)),
        el('dt', {}, 'Product code'), el('dd', {}, p.product_code)),
      form))] };
}

function addToCart(product, quantity) {
  setQuantity(product.product_code, Math.min(99, inCart(product.product_code) + quantity));
  track('add_to_cart', product.product_code, quantity);
  say(`${product.product_name} is in the cart.`);
  showCount();
  recommend();
}

function showCount() {
  byId('cart-count').textContent = String(session.cart.length);
}

function viewFor(parts) {
  const page = (text) => Math.max(1, Number.parseInt(text, 10) || 1);
  switch (parts[0]) {
    case 'line': return lineView(parts[1] || '', page(parts[2]));
    case 'search': return searchView(parts[1] || '', page(parts[2]));
    case 'product': return productView(parts[1] || '');
    case 'cart': return cartView(() => { showCount(); show(); });
    default: return homeView(page(parts[1]));
  }
}

function parts() {
  try { return location.hash.replace(/^#\//, '').split('/').map(decodeURIComponent); } catch { return ['']; }
}

// Shows what the address says. Focus moves to the heading, as a new page's would.
async function show({ first = false } = {}) {
  const mine = ++turn;
  const route = parts();
  let view;
  try {
    view = await viewFor(route);
  } catch (error) {
    view = { title: 'Sorry', nodes: [
      el('h1', { tabindex: '-1' }, error.status === 404 ? 'No such product' : 'Sorry'),
      el('p', { class: 'problem' }, error.message),
      el('p', {}, el('a', { href: '#/' }, 'Back to the shop'))] };
  }
  if (mine !== turn) return;
  document.title = `${view.title} · The Millrace Shop`;
  byId('main').replaceChildren(...view.nodes.filter(Boolean));
  for (const a of byId('lines').querySelectorAll('a')) {
    if (route[0] === 'line' && a.textContent === route[1]) a.setAttribute('aria-current', 'page');
    else a.removeAttribute('aria-current');
  }
  if (!first) {
    scrollTo(0, 0);
    byId('main').querySelector('h1')?.focus();
  }
  recommend();
}

async function start() {
  byId('search').addEventListener('submit', (e) => {
    e.preventDefault();
    const q = byId('q').value.trim();
    if (q) location.hash = href('search', q);
  });
  byId('skip').addEventListener('click', (e) => { e.preventDefault(); byId('main').focus(); });
  addEventListener('hashchange', () => show());
  showCount();
  try {
    const [config, lines, customers] = await Promise.all([getConfig(), getLines(), getCustomers()]);
    startActivity(config.collect_url);
    startRecommendations(config.recommend_url);
    byId('lines').replaceChildren(...lines.map((l) => el('li', {}, el('a', { href: href('line', l) }, l))));
    const select = byId('customer');
    select.append(...customers.map((c) => el('option', { value: c.customer_number, selected: c.customer_number === session.customer?.customer_number },
      `${c.city}, ${c.country} (${c.customer_number})`)));
    select.addEventListener('change', () => {
      signIn(customers.find((c) => String(c.customer_number) === select.value) || null);
      show({ first: true });
    });
  } catch (error) {
    say(error.message);
  }
  await show({ first: true });
}

start();
