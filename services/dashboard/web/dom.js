// Elements from names, attributes and children. Text is only ever set as text, so nothing that comes from a server can
// become markup.
const build = (node, attributes, children) => {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(key, '');
    else if (value !== false && value !== undefined && value !== null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};

export const el = (name, attributes = {}, ...children) => build(document.createElement(name), attributes, children);

export const svg = (name, attributes = {}, ...children) =>
  build(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children);

export const byId = (id) => document.getElementById(id);

export const byTest = (name) => document.querySelector(`[data-test="${name}"]`);

// Sets text only when it is another one: a live number must not take away a reader's selection.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

let clearing;

// Says something to those who listen to the page. Calls in quick succession say only the last.
export function say(text) {
  clearTimeout(clearing);
  clearing = setTimeout(() => setText(byId('said'), text), 400);
}
