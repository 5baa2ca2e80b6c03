// The sessions of an application: made by its own route, and read back by it.
const PARALLEL = 16;
const TIMEOUT = 10_000;

/** Makes sessions and gives their cookies, as they are sent. */
export async function signIn({ url }, count) {
  return inParallel(Array.from({ length: count }), async () => {
    const response = await fetch(`${url}/login`, { method: 'POST', signal: AbortSignal.timeout(TIMEOUT) });
    await response.text();
    if (!response.ok) throw new Error(`/login answers ${response.status}`);
    const cookies = response.headers.getSetCookie().map((cookie) => cookie.split(';')[0]);
    // The bare application sets none, but requests to it shall be as long as those to others.
    return cookies.join('; ') || `visit=${'0'.repeat(32)}.${'0'.repeat(43)}`;
  });
}

/** What the sessions have counted, all together. */
export async function sumOf({ url }, cookies) {
  const counters = await inParallel(cookies, async (cookie) => {
    const response = await fetch(`${url}/read`, { headers: { cookie }, signal: AbortSignal.timeout(TIMEOUT) });
    if (!response.ok) throw new Error(`/read answers ${response.status}`);
    return (await response.json()).counter;
  });
  return counters.reduce((sum, counter) => sum + counter, 0);
}

async function inParallel(items, work) {
  const results = [];
  let next = 0;
  const worker = async () => {
    while (next < items.length) {
      const index = next++;
      results[index] = await work(items[index]);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
  return results;
}
