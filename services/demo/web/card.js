import { art } from '/shop/art.js';
import { el, money } from '/shop/dom.js';

// A product in a list. The whole card is clickable, one link names it.
export function card(product, note) {
  return el('li', { class: 'card' },
    art(product.product_line, product.product_code),
    el('div', { class: 'text' },
      el('a', { href: `#/product/${encodeURIComponent(product.product_code)}` }, product.product_name),
      el('span', { class: 'small' }, note || `${product.product_scale} · ${product.product_vendor}`),
      el('span', { class: 'price' }, product.quantity_in_stock > 0 ? money(product.price, product.currency) : 'Out of stock')));
}
