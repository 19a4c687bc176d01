/** The status page: what a person sees in a browser. Pure; whatever came from outside is escaped. */
import { formatBytes } from '../core/log.ts';
import type { Counter } from './metrics.ts';
import type { Health } from './upstream.ts';

export interface Status {
  readonly counters: Readonly<Record<Counter, number>>;
  readonly objects: number;
  readonly bytes: number;
  readonly urls: number;
  readonly quota: number;
  readonly offline: boolean;
  readonly connections: number;
  readonly residentBytes: number;
  readonly fetching: readonly {
    readonly what: string;
    readonly received: number;
    readonly size: number | undefined;
    readonly clients: number;
  }[];
  readonly upstreams: readonly Health[];
  readonly suites: readonly {
    readonly backend: string;
    readonly root: string;
    readonly date: number;
    readonly checkedAt: number;
    readonly signed: boolean;
    readonly problem: string;
  }[];
  readonly backends: readonly { readonly name: string; readonly mirrors: readonly string[] }[];
}

/** Share of answers that did not need upstream's bytes, 0 to 1; 0 when there were none. */
export function hitRate(counters: Readonly<Record<Counter, number>>): number {
  const { hits, revalidated, stale, joins, misses } = counters;
  const good = hits + revalidated + stale + joins;
  return good + misses === 0 ? 0 : good / (good + misses);
}

function escapeHtml(text: string): string {
  const names: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
  return text.replace(/[&<>"']/g, (character) => names[character]!);
}

export function statusPage(status: Status): string {
  const { counters } = status;
  const row = (cells: readonly string[]) => `<tr>${cells.map((cell) => `<td>${escapeHtml(cell)}</td>`).join('')}</tr>`;
  const table = (heads: readonly string[], rows: readonly (readonly string[])[]) =>
    rows.length === 0
      ? '<p>none</p>'
      : `<table><tr>${heads.map((head) => `<th>${escapeHtml(head)}</th>`).join('')}</tr>${rows.map(row).join('')}</table>`;
  const date = (seconds: number) => new Date(seconds * 1000).toISOString().slice(0, 19).replace('T', ' ');
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>buildkit proxy</title>
<!-- what auto-apt-proxy looks for on port 9999: <title>approx server</title> -->
<style>body{font:15px/1.5 sans-serif;margin:2em;max-width:70em}table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:left}</style>
</head><body><h1>buildkit proxy${status.offline ? ' (offline)' : ''}</h1>
<h2>Answers</h2>${table(
    ['what', 'so far'],
    [
      ['hit rate', `${(hitRate(counters) * 100).toFixed(1)} %`],
      ['saved', formatBytes(counters.bytes_saved)],
      ['sent', formatBytes(counters.bytes_out)],
      ['fetched', formatBytes(counters.bytes_fetched)],
      ...Object.entries(counters)
        .filter(([name, value]) => value > 0 && !name.startsWith('bytes'))
        .map(([name, value]) => [name.replaceAll('_', ' '), String(value)]),
    ],
  )}
<h2>Cache</h2><p>${status.objects} files, ${formatBytes(status.bytes)}${status.quota > 0 ? ` of ${formatBytes(status.quota)}` : ''}, ${status.urls} addresses; ${status.connections} connections; ${formatBytes(status.residentBytes)} resident</p>
<h2>Being fetched</h2>${table(
    ['what', 'received', 'size', 'clients'],
    status.fetching.map((one) => [
      one.what,
      formatBytes(one.received),
      one.size === undefined ? '?' : formatBytes(one.size),
      String(one.clients),
    ]),
  )}
<h2>Upstreams</h2>${table(
    ['server', 'requests', 'failures', 'bytes', 'state'],
    status.upstreams.map((one) => [
      one.origin,
      String(one.requests),
      String(one.failures),
      formatBytes(one.bytes),
      one.downForMs > 0 ? `down: ${one.lastError ?? ''}` : 'up',
    ]),
  )}
<h2>Suites</h2>${table(
    ['back end', 'suite', 'of', 'checked', 'signature', 'trouble'],
    status.suites.map((one) => [
      one.backend,
      one.root,
      date(one.date),
      date(one.checkedAt),
      one.signed ? 'good' : 'unknown key',
      one.problem,
    ]),
  )}
<h2>Back ends</h2>${table(
    ['name', 'mirrors'],
    status.backends.map((one) => [`/${one.name}/`, one.mirrors.join(' ')]),
  )}
<p><a href="/metrics">metrics</a> <a href="/healthz">healthz</a></p>
</body></html>
`;
}
