// Questions to the API. An answer that a later question has made useless is dropped.
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export async function get(path, signal) {
  let response;
  try {
    response = await fetch(path, { signal, headers: { Accept: 'application/json' } });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(0, 'The dashboard’s server does not answer. Trying again.');
  }
  const body = await response.json().catch(() => null);
  if (!response.ok || !body) throw new Problem(response.status, body?.detail ?? `The server answered ${response.status}.`);
  return body;
}

// The live stream. The browser reconnects by itself; where the server refused, it must be opened again.
export function live({ onSales, onFreshness, onState }) {
  let wait = 1000;
  const open = () => {
    const source = new EventSource('/v1/sales/live');
    source.addEventListener('open', () => { wait = 1000; onState(true); });
    source.addEventListener('sales', (event) => onSales(JSON.parse(event.data)));
    source.addEventListener('freshness', (event) => onFreshness(JSON.parse(event.data)));
    source.addEventListener('error', () => {
      onState(false);
      if (source.readyState !== EventSource.CLOSED) return;
      setTimeout(open, wait);
      wait = Math.min(2 * wait, 30000);
    });
  };
  open();
}
