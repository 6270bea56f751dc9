// A drawing for each product line, varied a little by product. Colours come from
// the style sheet, so that they follow the dark mode.
const SVG = 'http://www.w3.org/2000/svg';

const drawings = {
  'Steam Railways': [['M40 92h104v-30h-22v-20H94v20H76V40H62v22H40z'], ['M52 104a12 12 0 1 0 24 0 12 12 0 1 0-24 0M84 104a12 12 0 1 0 24 0 12 12 0 1 0-24 0M116 104a12 12 0 1 0 24 0 12 12 0 1 0-24 0', 'M56 34q-10-14 8-16t10-8']],
  'Tall Ships': [['M36 96h112q-8 24-28 24H62q-20 0-26-24z', 'M90 20h4v74h-4z'], ['M96 26q34 22 34 58H96zM86 34q-30 20-34 50h34z']],
  'Trams and Trolleys': [['M44 50h100q8 0 8 8v44H36V58q0-8 8-8z'], ['M48 60h20v18H48zM74 60h20v18H74zM100 60h20v18h-20zM126 60h16v18h-16z', 'M50 110a8 8 0 1 0 16 0 8 8 0 1 0-16 0M122 110a8 8 0 1 0 16 0 8 8 0 1 0-16 0', 'M92 48l16-22M30 26h128']],
  'Airships and Gliders': [['M30 66q24-34 70-34t62 34q-16 34-62 34T30 66z'], ['M82 100h36l-6 16H88z', 'M34 66L20 46v40z', 'M60 66h80']],
  'Farm Machinery': [['M56 84V50h36l8 24h42v20H56z'], ['M46 96a22 22 0 1 0 44 0 22 22 0 1 0-44 0M120 104a14 14 0 1 0 28 0 14 14 0 1 0-28 0', 'M124 72V50h6v22z']],
  'Rockets and Probes': [['M92 16q22 22 20 66H72q-2-44 20-66z'], ['M72 72L54 98h18zM112 72l18 26h-18zM84 48a8 8 0 1 0 16 0 8 8 0 1 0-16 0', 'M82 90h20l-10 28z']],
  'Mills and Bridges': [['M68 116l8-56h32l8 56z', 'M74 60l18-18 18 18z'], ['M92 56L46 28l-4 10zM92 56l46-28 4 10zM92 56L52 96l8 6zM92 56l40 40-8 6z', 'M24 118q12-8 24 0t24 0 24 0 24 0 24 0 20 0']],
  'Racing Bicycles': [['M30 92a24 24 0 1 0 48 0 24 24 0 1 0-48 0M106 92a24 24 0 1 0 48 0 24 24 0 1 0-48 0'], ['M54 92l22-40h38l16 40M76 52l16 40h-38M92 92l22-40-4-12h14M66 44h20']],
};
const outlines = new Set(['Racing Bicycles']);

export function art(line, code) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 184 140');
  svg.setAttribute('class', 'art');
  svg.setAttribute('aria-hidden', 'true'); // the name beside it says what it is
  const shift = [...code].reduce((sum, c) => (sum * 31 + c.charCodeAt(0)) % 997, 7);
  add(svg, 'circle', { cx: 30 + (shift % 120), cy: 20 + (shift % 50), r: 18 + (shift % 26), fill: 'currentColor', opacity: '0.1' });
  add(svg, 'path', { d: `M0 ${112 + (shift % 10)}q46-${shift % 14} 92 0t92 0V140H0z`, fill: 'currentColor', opacity: '0.14' });
  const [first, second] = drawings[line] || [['M52 40h80v70H52z'], ['M52 60h80']];
  const open = outlines.has(line);
  for (const d of first) add(svg, 'path', paint(d, open));
  const group = add(svg, 'g', { class: 'second' });
  for (const d of second) add(group, 'path', paint(d, open || !/z/i.test(d) && !/a\d/.test(d)));
  return svg;
}

const paint = (d, open) => (open
  ? { d, fill: 'none', stroke: 'currentColor', 'stroke-width': 4, 'stroke-linecap': 'round', 'stroke-linejoin': 'round' }
  : { d, fill: 'currentColor' });

function add(parent, name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent.append(node);
  return node;
}
