// Prometheus' text form, read into values; what two readings say together.

/** Samples of a text: [{name, labels, value}]. */
export function parseMetrics(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(/([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g))
      labels[name] = value.replace(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped));
    samples.push({ name: match[1], labels, value: match[3] === "+Inf" ? Infinity : Number(match[3]) });
  }
  return samples;
}

/** A reading of all metrics, of one model or ("") of all together. */
export class Reading {
  constructor(samples, model, at) {
    this.at = at; // milliseconds
    this.values = new Map();
    for (const { name, labels, value } of samples) {
      if (model && labels.model !== undefined && labels.model !== model) continue;
      const key = labels.le === undefined ? name : `${name}|${labels.le}`;
      this.values.set(key, (this.values.get(key) ?? 0) + value);
    }
  }

  /** A counter or gauge; 0 where there is none. */
  get(name) {
    return this.values.get(`torchless_${name}`) ?? 0;
  }

  has(name) {
    return this.values.has(`torchless_${name}`);
  }

  /** How much a counter has grown since an earlier reading, in each second. */
  rate(name, earlier) {
    const seconds = (this.at - earlier.at) / 1000;
    return seconds > 0 ? Math.max(0, this.get(name) - earlier.get(name)) / seconds : 0;
  }

  /** The buckets of a histogram since an earlier reading: [{bound, count}], counts of each bucket alone. */
  buckets(name, earlier) {
    const prefix = `torchless_${name}_bucket|`;
    const found = [...this.values.keys()]
      .filter((key) => key.startsWith(prefix))
      .map((key) => ({ bound: key.slice(prefix.length) === "+Inf" ? Infinity : Number(key.slice(prefix.length)), key }))
      .sort((one, other) => one.bound - other.bound);
    let before = 0;
    return found.map(({ bound, key }) => {
      const total = Math.max(0, (this.values.get(key) ?? 0) - (earlier?.values.get(key) ?? 0));
      const count = Math.max(0, total - before);
      before = total;
      return { bound, count };
    });
  }
}

/** The value below which a share of all lie, interpolated within its bucket; null without any. */
export function quantile(buckets, share) {
  const total = buckets.reduce((sum, { count }) => sum + count, 0);
  if (!total) return null;
  let seen = 0;
  let low = 0;
  for (const { bound, count } of buckets) {
    if (count && seen + count >= share * total)
      return bound === Infinity ? low : low + ((bound - low) * (share * total - seen)) / count;
    seen += count;
    low = bound;
  }
  return low;
}
