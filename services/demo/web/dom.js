// Elements from names, properties and children. Text is only ever set as text,
// never parsed, so nothing that comes from a server can become markup.
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, '');
    else if (value !== false && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

let clearing;

// Says something to everybody, those who listen to the page included.
export function say(text) {
  byId('status').textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => { byId('status').textContent = ''; }, 5000);
}

export function money(amount, currency) {
  return new Intl.NumberFormat(undefined, { style: 'currency', currency }).format(Number(amount));
}
