// Everything that was measured. Ratios are made within a round, so that what slows the machine down for a while hits
// both sides.

/** @typedef {{ median: number, min: number, max: number }} Spread */

export class Results {
  /** @type {Map<string, import('./measure.mjs').Sample[]>} */
  #samples = new Map();
  apps = [];

  add({ subject, route, connections }, round, sample) {
    const key = keyOf(subject, route, connections);
    const samples = this.#samples.get(key) ?? [];
    samples[round] = sample;
    this.#samples.set(key, samples);
  }

  addApp(app) {
    this.apps.push(app);
  }

  /** @returns {import('./measure.mjs').Sample[]} one of each round */
  samples(subject, route, connections = 64) {
    return this.#samples.get(keyOf(subject, route, connections)) ?? [];
  }

  /** Those of all its loads. */
  samplesOf(subject) {
    const start = `${subject.key} `;
    return [...this.#samples].filter(([key]) => key.startsWith(start)).flatMap(([, samples]) => samples);
  }

  /** Whether nest-visit failed anywhere to answer or to keep what it had answered. */
  ownTroubles() {
    const own = this.apps.filter(({ subject }) => subject.variant.app === 'nest-visit');
    const samples = own.flatMap(({ subject, warmUp }) => [...this.samplesOf(subject), warmUp]);
    return samples.some(({ error, refused, failed, lost, surplus }) => error || refused || failed || lost || surplus);
  }

  /** The subject that differs only in its variant, if it was measured. */
  sibling({ platform, node }, id) {
    return this.subjects().find(
      (other) => other.platform === platform && other.node === node && other.variant.id === id,
    );
  }

  subjects() {
    return this.apps.map(({ subject }) => subject);
  }

  /** @returns {Spread | undefined} of what `value` takes from the samples */
  spread(subject, route, connections, value) {
    return spreadOf(this.samples(subject, route, connections).map((sample) => value(sample)));
  }

  /** @returns {Spread | undefined} how many times as much of `value` the one has as the other */
  ratio(subject, other, route, connections = 64, value = ({ rate }) => rate) {
    if (!subject || !other) return undefined;
    const base = this.samples(other, route, connections);
    return spreadOf(
      this.samples(subject, route, connections).map((sample, round) => value(sample) / value(base[round] ?? {})),
    );
  }
}

const keyOf = (subject, route, connections) => `${subject.key} ${route} ${connections}`;

/** @returns {Spread | undefined} */
export function spreadOf(values) {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (sorted.length === 0) return undefined;
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, min: sorted[0], max: sorted.at(-1) };
}
