/**
 * What these give, when all run at the same moment. In odd rounds the last one starts first: a store that answers in no
 * time would otherwise always see them in the order in which they are written here.
 */
export async function race<T extends unknown[]>(
  round: number,
  ...calls: { [K in keyof T]: () => Promise<T[K]> }
): Promise<T> {
  const order = round % 2 ? calls.toReversed() : calls;
  const running = new Map(order.map((call) => [call, call()]));
  return Promise.all(calls.map((call) => running.get(call)!)) as Promise<T>;
}
