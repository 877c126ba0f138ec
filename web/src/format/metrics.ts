// Parses the host's metrics in the Prometheus text format.
export interface Metric {
  name: string;
  labels: Record<string, string>;
  value: number;
}

export function readMetrics(text: string): Metric[] {
  const metrics: Metric[] = [];
  for (const line of text.split('\n')) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match?.[1]) continue;
    const labels = [...(match[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)];
    metrics.push({
      name: match[1],
      labels: Object.fromEntries(labels.map(([, key, value]) => [key, value])),
      value: Number(match[3]),
    });
  }
  return metrics;
}
