// The host's figures in the text form that Prometheus reads.
export interface Figure {
  name: string;
  labels: Record<string, string>;
  value: number;
}

export function readMetrics(text: string): Figure[] {
  const figures: Figure[] = [];
  for (const line of text.split('\n')) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match?.[1]) continue;
    const labels = [...(match[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)];
    figures.push({
      name: match[1],
      labels: Object.fromEntries(labels.map(([, key, value]) => [key, value])),
      value: Number(match[3]),
    });
  }
  return figures;
}
