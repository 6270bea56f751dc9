// The store's own API. Errors carry the problem's detail (RFC 9457).
async function call(path, options) {
  const response = await fetch(`/shop/api/${path}`, options);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw Object.assign(new Error(body.detail || 'The shop does not answer. Try again in a moment.'), { status: response.status, problem: body });
  }
  return body;
}

export const getConfig = () => call('config');
export const getLines = () => call('lines').then((b) => b.product_lines);
export const getCustomers = () => call('customers').then((b) => b.customers);
export const getProduct = (code, currency) => call(`products/${encodeURIComponent(code)}?${new URLSearchParams({ currency })}`);
export const getProducts = (query) => call(`products?${new URLSearchParams(query)}`);

export async function getByCodes(codes, currency) {
  if (codes.length === 0) return [];
  const { products } = await getProducts({ codes: codes.join(','), currency });
  const found = new Map(products.map((p) => [p.product_code, p]));
  return codes.map((c) => found.get(c)).filter(Boolean);
}

export const checkout = (order) => call('checkout', {
  method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(order),
});
