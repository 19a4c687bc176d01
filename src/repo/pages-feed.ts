/**
 * The Atom feed of a suite: what came last (RFC 4287).
 *
 * Secret: ids that stay the same for ever, wherever the repository moves: made from what the entry is about. Pure.
 */
import { createHash } from 'node:crypto';
import { escapeText, pathLink } from './pages-html.ts';
import type { Arrival, RepositoryView, SuiteView } from './pages-views.ts';

/** A name-based URN (RFC 9562, version 8: what it is made from is ours to say). */
function urn(...parts: readonly string[]): string {
  const hex = createHash('sha256').update(JSON.stringify(parts)).digest('hex');
  const variant = ((Number.parseInt(hex[16]!, 16) & 0x3) | 0x8).toString(16);
  return `urn:uuid:${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

/**
 * @param arrivals newest first
 * @param updated ISO 8601; for a feed without entries
 */
export function renderFeed(
  repository: RepositoryView,
  suite: SuiteView,
  arrivals: readonly Arrival[],
  updated: string,
): string {
  const base = repository.url === undefined ? '' : `${repository.url}pages/${pathLink(suite.name)}/`;
  const e = escapeText;
  const entries = arrivals.map(
    (one) => `<entry>
<id>${urn(repository.origin, repository.label, suite.name, one.name, one.version, one.architecture, one.addedAt)}</id>
<title>${e(`${one.name} ${one.version} (${one.architecture})`)}</title>
<link href="${e(`${base}packages/${pathLink(one.name)}.html`)}"/>
<updated>${e(one.addedAt)}</updated>
<summary>${e(one.synopsis)}</summary>
</entry>
`,
  );
  return `<?xml version="1.0" encoding="utf-8"?>
<feed xmlns="http://www.w3.org/2005/Atom">
<id>${urn(repository.origin, repository.label, suite.name)}</id>
<title>${e(`${repository.label}: new in ${suite.name}`)}</title>
<author><name>${e(repository.origin)}</name></author>
<link rel="self" href="${e(`${base}feed.atom`)}"/>
<link href="${e(`${base}index.html`)}"/>
<updated>${e(arrivals[0]?.addedAt ?? updated)}</updated>
${entries.join('')}</feed>
`;
}
