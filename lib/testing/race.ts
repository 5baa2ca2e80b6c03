/**
 * Runs all of these concurrently and returns their results. In odd rounds, the last one starts first: a store that
 * works synchronously would otherwise always run them in the given order.
 */
export async function race<T extends unknown[]>(
  round: number,
  ...calls: { [K in keyof T]: () => Promise<T[K]> }
): Promise<T> {
  const order = round % 2 ? calls.toReversed() : calls;
  const running = new Map(order.map((call) => [call, call()]));
  return Promise.all(calls.map((call) => running.get(call)!)) as Promise<T>;
}
