/** Counters of the proxy, and how Prometheus reads them (text exposition format 0.0.4). */

const HELP = {
  requests: 'requests answered',
  hits: 'answers from the cache without asking upstream',
  revalidated: 'answers from the cache after asking upstream',
  misses: 'answers fetched upstream',
  joins: 'answers fed from a fetch that another client started',
  stale: 'answers from the cache while upstream did not answer',
  absent: 'files that do not exist upstream',
  unavailable: 'requests that could not be answered',
  refused: 'requests refused by a rule',
  bytes_out: 'bytes sent to clients',
  bytes_saved: 'bytes sent to clients that were not fetched for them',
  bytes_fetched: 'bytes stored from upstream',
  bad_bodies: 'upstream bodies that did not have the digest or length of the signed index',
  bad_signatures: 'Release files refused for their signature',
  stale_mirrors: 'Release files that were older than the one here',
  held_snapshots: 'times that an older snapshot was kept because upstream was publishing',
  disk_trouble: 'writes that the disk refused',
  healed: 'objects that were changed or deleted behind the back of the cache',
  harvest_failures: 'indexes that could not be read',
  tunnels: 'CONNECT tunnels opened',
} as const;

export type Counter = keyof typeof HELP;

export interface Metrics {
  add(name: Counter, by?: number): void;
  get(name: Counter): number;
  /** What was counted since the last call, for the database. */
  takeChanges(): Map<string, number>;
  all(): Record<Counter, number>;
}

export function createMetrics(start: ReadonlyMap<string, number>): Metrics {
  const names = Object.keys(HELP) as Counter[];
  const values = new Map<Counter, number>(names.map((name) => [name, start.get(name) ?? 0]));
  const saved = new Map(values);
  return {
    add: (name, by = 1) => void values.set(name, values.get(name)! + by),
    get: (name) => values.get(name)!,
    takeChanges() {
      const changes = new Map<string, number>();
      for (const [name, value] of values) if (value !== saved.get(name)) changes.set(name, value - saved.get(name)!);
      for (const [name, value] of values) saved.set(name, value);
      return changes;
    },
    all: () => Object.fromEntries(values) as Record<Counter, number>,
  };
}

export interface Gauges {
  readonly objects: number;
  readonly bytes: number;
  readonly fetching: number;
  readonly connections: number;
  readonly upstreams: readonly { readonly origin: string; readonly up: boolean; readonly failures: number }[];
}

export function prometheusText(counters: Readonly<Record<Counter, number>>, gauges: Gauges): string {
  const lines: string[] = [];
  for (const [name, value] of Object.entries(counters) as [Counter, number][]) {
    lines.push(`# HELP buildkit_proxy_${name}_total ${HELP[name]}`, `# TYPE buildkit_proxy_${name}_total counter`);
    lines.push(`buildkit_proxy_${name}_total ${value}`);
  }
  const gauge = (name: string, help: string, rows: readonly string[]) =>
    lines.push(`# HELP buildkit_proxy_${name} ${help}`, `# TYPE buildkit_proxy_${name} gauge`, ...rows);
  gauge('objects', 'files in the cache', [`buildkit_proxy_objects ${gauges.objects}`]);
  gauge('cache_bytes', 'bytes in the cache', [`buildkit_proxy_cache_bytes ${gauges.bytes}`]);
  gauge('fetching', 'upstream fetches under way', [`buildkit_proxy_fetching ${gauges.fetching}`]);
  gauge('connections', 'open client connections', [`buildkit_proxy_connections ${gauges.connections}`]);
  const label = (text: string) => text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
  gauge(
    'upstream_up',
    '1 while an upstream server answers',
    gauges.upstreams.map(({ origin, up }) => `buildkit_proxy_upstream_up{origin="${label(origin)}"} ${up ? 1 : 0}`),
  );
  return `${lines.join('\n')}\n`;
}
