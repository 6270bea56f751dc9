// Who is visiting and what they have in mind: the session, the identity, the cart
// and the products looked at. Kept in the browser only.
const read = (store, key, fallback) => {
  try { return JSON.parse(store.getItem(key)) ?? fallback; } catch { return fallback; }
};
const write = (store, key, value) => {
  try { store.setItem(key, JSON.stringify(value)); } catch { /* private mode: forget it on reload */ }
};

// randomUUID exists on secure origins only; the shop may be served over plain HTTP.
export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const b = crypto.getRandomValues(new Uint8Array(16));
  b[6] = (b[6] & 0x0f) | 0x40;
  b[8] = (b[8] & 0x3f) | 0x80;
  const hex = [...b].map((x) => x.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

export const session = {
  id: read(sessionStorage, 'session_id', null) || uuid(),
  anonymous: read(localStorage, 'anonymous_id', null) || uuid(),
  customer: read(sessionStorage, 'customer', null), // {customer_number, currency}
  cart: read(sessionStorage, 'cart', []), // [{product_code, quantity}]
  viewed: read(sessionStorage, 'viewed', []), // product codes, the latest last
};
write(sessionStorage, 'session_id', session.id);
write(localStorage, 'anonymous_id', session.anonymous);

export const currency = () => session.customer?.currency || 'USD';

export function signIn(customer) {
  session.customer = customer;
  write(sessionStorage, 'customer', customer);
}

export function remember(code) {
  session.viewed = [...session.viewed.filter((c) => c !== code), code].slice(-20);
  write(sessionStorage, 'viewed', session.viewed);
}

// Sets how many of a product are in the cart; 0 takes it out.
export function setQuantity(code, quantity) {
  const at = session.cart.findIndex((i) => i.product_code === code);
  if (quantity <= 0) session.cart = session.cart.filter((i) => i.product_code !== code);
  else if (at >= 0) session.cart[at].quantity = quantity;
  else session.cart.push({ product_code: code, quantity });
  write(sessionStorage, 'cart', session.cart);
}

export const inCart = (code) => session.cart.find((i) => i.product_code === code)?.quantity || 0;

export function emptyCart() {
  session.cart = [];
  write(sessionStorage, 'cart', []);
}

export function browseHistory() {
  const seen = session.viewed.filter((c) => !inCart(c)).map((c) => ({ product_code: c, quantity: 1, in_shopping_cart: false }));
  return [...seen, ...session.cart.map((i) => ({ ...i, in_shopping_cart: true }))];
}
