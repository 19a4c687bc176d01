/**
 * The pages themselves: repository, suite, list, package.
 *
 * Secret: what stands where. Pure: texts in, texts out. Every page is whole without JavaScript; what the script adds is marked by
 * the class `copy`, and by `search`, which is hidden without it.
 */
import { createHash } from 'node:crypto';
import { formatBytes } from '../core/log.ts';
import { shellQuote } from '../core/run.ts';
import { getField } from '../deb/control.ts';
import { type Html, html, pathLink, plainText, renderDescription, safeLink } from './pages-html.ts';
import type { ListedPackage, ListPart, PackagePage, RelationRow } from './pages-model.ts';
import type { SourcePage } from './pages-sources.ts';
import { SCRIPT, STYLE } from './pages-style.ts';

/** What every page knows of the repository. */
export interface RepositoryView {
  readonly label: string;
  readonly origin: string;
  readonly description?: string | undefined;
  /** With a slash at its end; undefined: not known. */
  readonly url?: string | undefined;
  readonly fingerprints: readonly string[];
}

/** What every page of a suite knows of it. */
export interface SuiteView {
  readonly name: string;
  readonly alias?: string | undefined;
  readonly components: readonly string[];
  readonly architectures: readonly string[];
}

/** What only the page of the suite shows: it changes with each publish. */
export interface SuiteState {
  readonly packages: number;
  /** ISO 8601. */
  readonly date: string;
  readonly validUntil: string | undefined;
  /** The `.sources` entry with the key in it. */
  readonly sources: string;
  /** How many source packages there are (default 0). */
  readonly sourcePackages?: number | undefined;
}

export interface Arrival {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly synopsis: string;
  /** ISO 8601. */
  readonly addedAt: string;
}

const ICON =
  "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' rx='4' fill='%23a50e3d'/%3E%3Cpath d='M4 6l4-2 4 2v4l-4 2-4-2z' fill='none' stroke='%23fff'/%3E%3C/svg%3E";

/** Nothing from elsewhere is loaded, and nothing that stands in a page runs. */
const POLICY =
  "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'";

/** So that a browser asks for style and script anew when they change. */
const ASSETS = createHash('sha256')
  .update(STYLE + SCRIPT)
  .digest('hex')
  .slice(0, 12);

interface Shell {
  readonly title: string;
  /** From this page to the folder of the repository: './', '../../'. */
  readonly root: string;
  readonly trail: readonly { readonly text: string; readonly link: string }[];
  /** The Atom feed, from this page. */
  readonly feed?: string | undefined;
  readonly body: Html;
}

function renderShell(repository: RepositoryView, shell: Shell): string {
  const { root, trail, feed } = shell;
  return html`<!doctype html>
<html lang="en" data-root="${root}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="color-scheme" content="light dark">
<title>${shell.title}</title>
<link rel="icon" href="${ICON}">
<link rel="stylesheet" href="${root}pages.css?${ASSETS}">
${feed === undefined ? undefined : html`<link rel="alternate" type="application/atom+xml" href="${feed}" title="New packages">\n`}<script src="${root}pages.js?${ASSETS}" defer></script>
</head>
<body>
<header><a class="brand" href="${root}index.html">${repository.label}</a>${trail.map((step) => html` <span class="step"><a href="${step.link}">${step.text}</a></span>`)}</header>
<main>
${shell.body}</main>
<footer><p>${repository.origin} · signed by ${repository.fingerprints.map((one) => html`<code>${spaced(one)}</code> `)}· <a href="${root}archive-key.asc">public key</a></p></footer>
</body>
</html>
`.html;
}

/** A fingerprint in groups of four, as gpg shows it. */
function spaced(fingerprint: string): string {
  return fingerprint.toUpperCase().replaceAll(/(.{4})(?=.)/g, '$1 ');
}

/** '1 package', '2 packages', '60,000 packages'. */
function counted(count: number, noun: string): string {
  const grouped = String(count).replaceAll(/\B(?=(?:\d{3})+$)/g, ','); // toLocaleString takes 50 ms to begin
  return `${grouped} ${noun}${count === 1 ? '' : 's'}`;
}

function day(iso: string): Html {
  return html`<time datetime="${iso}">${iso.slice(0, 10)}</time>`;
}

function minute(iso: string): Html {
  return html`<time datetime="${iso}">${iso.slice(0, 16).replace('T', ' ')} UTC</time>`;
}

function command(text: string): Html {
  return html`<div class="copy"><pre>${text}</pre></div>\n`;
}

/** Lines that belong together: a narrow page scrolls them. */
function entryOf(state: SuiteState): Html {
  return html`<div class="copy"><pre class="entry">${state.sources}</pre></div>\n`;
}

/** The front page: which suites there are. */
export function renderFrontPage(
  repository: RepositoryView,
  suites: readonly (SuiteView & { readonly packages: number; readonly date: string })[],
): string {
  const cards = suites.map(
    (suite) =>
      html`<li><a href="pages/${pathLink(suite.name)}/index.html"><strong>${suite.name}</strong><span>${counted(suite.packages, 'package')} for ${suite.architectures.join(', ')}<br>updated ${day(suite.date)}</span></a></li>\n`,
  );
  return renderShell(repository, {
    title: repository.label,
    root: './',
    trail: [],
    body: html`<h1>${repository.label}</h1>
<p class="lead">${repository.description ?? 'A repository of packages for Debian.'}</p>
${cards.length === 0 ? html`<p>Nothing is published yet.</p>\n` : html`<ul class="suites">\n${cards}</ul>\n`}`,
  });
}

/** Where apt on a client looks for the entry: letters, digits, '-', '_' and '.' alone (sources.list(5)). */
export function sourcesFileName(label: string, suite: string): string {
  const slug = `${label}-${suite}`
    .toLowerCase()
    .replaceAll(/[^a-z0-9._-]+/g, '-')
    .replaceAll(/^[-.]+|[-.]+$/g, '');
  return `/etc/apt/sources.list.d/${slug}.sources`;
}

function renderSetup(repository: RepositoryView, suite: SuiteView, state: SuiteState, example: string): Html {
  const file = sourcesFileName(repository.label, suite.name);
  const first =
    repository.url === undefined
      ? html`<p>Save this as <code>${file}</code>; the key is in it.</p>\n${entryOf(state)}`
      : html`<p>Add the repository, with its key in the same file.</p>
${command(shellQuote(['sudo', 'wget', '-O', file, `${repository.url}${pathLink(suite.name)}.sources`]))}`;
  const entry =
    repository.url === undefined
      ? undefined
      : html`<details><summary>Or write <code>${file}</code> yourself</summary>
${entryOf(state)}</details>\n`;
  return html`<section id="setup">
<h2>Set up</h2>
<ol class="steps">
<li>${first}</li>
<li><p>Let apt read it.</p>
${command('sudo apt update')}</li>
<li><p>Install what you need.</p>
${command(`sudo apt install ${example}`)}</li>
</ol>
${entry}</section>
`;
}

function renderRows(packages: readonly ListedPackage[], folder: string): Html[] {
  return packages.map(
    ({ name, version, synopsis }) =>
      html`<li><a href="${folder}${pathLink(name)}.html">${name}</a><span class="version">${version}</span><span class="about">${synopsis}</span></li>\n`,
  );
}

/**
 * The page of a suite: how to set it up, what is in it, what is new.
 * @param list every package when they fit on a page, else the parts that have pages of their own
 */
export function renderSuitePage(
  repository: RepositoryView,
  suite: SuiteView,
  state: SuiteState,
  list: { readonly packages: readonly ListedPackage[] } | { readonly parts: readonly ListPart[] },
  arrivals: readonly Arrival[],
): string {
  const isCut = 'parts' in list;
  const names = isCut
    ? html`<ul class="names">
${list.parts.map((part) => html`<li><a href="list/${pathLink(part.prefix)}.html">${part.prefix} <small>${part.count}</small></a></li>\n`)}</ul>
<ul class="list" id="packages"></ul>\n`
    : html`<ul class="list" id="packages">\n${renderRows(list.packages, 'packages/')}</ul>\n`;
  const latest = arrivals.map(
    (one) =>
      html`<li><a href="packages/${pathLink(one.name)}.html">${one.name}</a><span class="version">${one.version}</span><span class="about">${one.architecture} · ${day(one.addedAt)}</span></li>\n`,
  );
  return renderShell(repository, {
    title: `${suite.name} · ${repository.label}`,
    root: '../../',
    trail: [{ text: suite.name, link: 'index.html' }],
    feed: 'feed.atom',
    body: html`<h1>${suite.name}${suite.alias === undefined ? undefined : html` <span class="version">${suite.alias}</span>`}</h1>
<ul class="meta">
<li>${counted(state.packages, 'package')}</li>${state.sourcePackages ? html`<li><a href="sources.html">${counted(state.sourcePackages, 'source package')}</a></li>` : undefined}<li>${suite.components.join(', ')}</li><li>${suite.architectures.join(', ')}</li>
<li>published ${minute(state.date)}</li>${state.validUntil === undefined ? undefined : html`<li>valid until ${day(state.validUntil)}</li>`}
</ul>
${state.packages === 0 ? html`<section><p>Nothing is in this suite yet.</p></section>\n` : undefined}${renderSetup(repository, suite, state, arrivals[0]?.name ?? 'PACKAGE')}<section>
<h2>Packages</h2>
<p class="search" hidden${isCut ? { html: ' data-index="search.txt"' } : undefined}><input type="search" placeholder="Search by name or words" aria-label="Search packages" autocomplete="off" spellcheck="false"></p>
<p class="about" id="count">${counted(state.packages, 'package')}</p>
${names}</section>
<section>
<h2>New here</h2>
<ul class="list">
${latest}</ul>
<p><a href="feed.atom">Atom feed</a> of new packages</p>
</section>
`,
  });
}

/** A part of a long list. */
export function renderListPage(
  repository: RepositoryView,
  suite: SuiteView,
  prefix: string,
  packages: readonly ListedPackage[],
): string {
  return renderShell(repository, {
    title: `${prefix} · ${suite.name} · ${repository.label}`,
    root: '../../../',
    trail: [
      { text: suite.name, link: '../index.html' },
      { text: prefix, link: `${pathLink(prefix)}.html` },
    ],
    body: html`<h1>${prefix}…</h1>
<section>
<p class="search" hidden><input type="search" placeholder="Search on this page" aria-label="Search packages" autocomplete="off" spellcheck="false"></p>
<p id="count">${counted(packages.length, 'package')}</p>
<ul class="list" id="packages">
${renderRows(packages, '../packages/')}</ul>
</section>
`,
  });
}

/** One line per package for the search of a long list: name, version, synopsis, between tabs. */
export function renderSearchIndex(packages: readonly ListedPackage[]): string {
  const cell = (text: string) => plainText(text).replaceAll(/[\t\n]/g, ' ');
  return packages.map((one) => `${cell(one.name)}\t${cell(one.version)}\t${cell(one.synopsis)}\n`).join('');
}

const MORE_RELATIONS = 40;

/** @param isKnown whether a name has a page in this suite */
function renderRelations(rows: readonly RelationRow[], isKnown: (name: string) => boolean): Html | undefined {
  if (rows.length === 0) return undefined;
  const group = (alternatives: RelationRow['groups'][number]) =>
    html`<dd>${alternatives.map(
      ({ name, text }, index) =>
        html`${index === 0 ? undefined : html` <small>or</small> `}${isKnown(name) ? html`<a href="${pathLink(name)}.html">${text}</a>` : text}`,
    )}</dd>\n`;
  const row = ({ field, groups, text }: RelationRow) =>
    html`<dt>${field}</dt>
${text === undefined ? groups.slice(0, MORE_RELATIONS).map(group) : html`<dd>${text}</dd>\n`}${
  groups.length > MORE_RELATIONS
    ? html`<dd><details><summary>and ${groups.length - MORE_RELATIONS} more</summary><dl>${groups.slice(MORE_RELATIONS).map(group)}</dl></details></dd>\n`
    : undefined
}`;
  return html`<section>
<h2>Relations</h2>
<dl class="relations">
${rows.map(row)}</dl>
</section>
`;
}

/** A hostile field of a megabyte shall not make a page of one. */
const MAX_FACT_CHARACTERS = 20_000;

function renderFiles({ files }: PackagePage): Html | undefined {
  if (files === undefined || files.count === 0) return undefined;
  const shown = files.shown.map((path) => `/${path}`);
  if (files.count > shown.length) shown.push(`... and ${files.count - shown.length} more`);
  return html`<section>
<h2>Files</h2>
<details${files.count <= 20 ? { html: ' open' } : undefined}><summary>${counted(files.count, 'file')}</summary>
<pre>${shown.join('\n')}</pre>
</details>
</section>
`;
}

function renderChangelog({ changelog }: PackagePage): Html | undefined {
  if (changelog === '') return undefined;
  return html`<section id="changelog">
<h2>Changelog</h2>
<pre class="wrap">${changelog}</pre>
</section>
`;
}

function renderFacts(page: PackagePage, isSource: (name: string) => boolean): Html {
  const field = (name: string) => getField(page.control, name)?.trim();
  const homepage = field('Homepage');
  const link = homepage === undefined ? undefined : safeLink(homepage);
  const kilobytes = Number(field('Installed-Size'));
  const { source } = page.versions[0]!.package;
  const facts: [string, Html | string | undefined][] = [
    ['Source', isSource(source) ? html`<a href="../sources/${pathLink(source)}.html">${source}</a>` : source],
    ['Section', field('Section')],
    ['Priority', field('Priority')],
    ['Installed size', kilobytes > 0 ? formatBytes(kilobytes * 1024) : undefined],
    ['Maintainer', field('Maintainer')],
    [
      'Homepage',
      link === undefined ? homepage : html`<a href="${link}" rel="nofollow noopener noreferrer">${homepage}</a>`,
    ],
    ['Multi-Arch', field('Multi-Arch')],
    ['Essential', field('Essential')],
  ];
  return html`<aside>
<dl>
${facts.flatMap(([name, value]) => (value === undefined || value === '' ? [] : [html`<dt>${name}</dt><dd>${value}</dd>\n`]))}</dl>
</aside>
`;
}

/**
 * @param isKnown whether a name has a page in this suite
 * @param isSource whether a source has
 */
export function renderPackagePage(
  repository: RepositoryView,
  suite: SuiteView,
  page: PackagePage,
  isKnown: (name: string) => boolean,
  isSource: (name: string) => boolean = () => false,
): string {
  const root = '../../../';
  const description = renderDescription(page.description);
  const rows = page.versions.map(
    ({ package: item, component, addedAt }) =>
      html`<tr><td><a href="${root}${pathLink(item.filename)}">${item.version}</a><span class="digest">SHA256 ${item.sha256}</span></td><td>${item.architecture}${item.kind === 'deb' ? undefined : ` (${item.kind})`}</td><td>${component}</td><td class="number">${formatBytes(item.size)}</td><td class="number">${day(addedAt)}</td></tr>\n`,
  );
  const newest = page.versions.filter((one) => one.package.version === page.version);
  const buttons = newest.map(
    ({ package: item }) =>
      html`<a class="button" href="${root}${pathLink(item.filename)}" download>${item.architecture} <small>${formatBytes(item.size)}</small></a> `,
  );
  return renderShell(repository, {
    title: `${page.name} · ${suite.name} · ${repository.label}`,
    root,
    trail: [
      { text: suite.name, link: '../index.html' },
      { text: page.name, link: `${pathLink(page.name)}.html` },
    ],
    feed: '../feed.atom',
    body: html`<h1>${page.name} <span class="version">${page.version}</span></h1>
<p class="lead">${page.synopsis}</p>
<div class="columns"><div>
<section>
<h2>Install</h2>
${command(`sudo apt install ${page.name}`)}<p>First time here? <a href="../index.html#setup">Set up ${suite.name}</a> first.</p>
<p class="downloads"><span>Or download</span> ${buttons}</p>
</section>
${description.length === 0 ? undefined : html`<section>\n<h2>Description</h2>\n${description}</section>\n`}${renderRelations(page.relations, isKnown)}${renderFiles(page)}${renderChangelog(page)}</div>
${renderFacts(page, isSource)}</div>
<section>
<h2>Versions</h2>
<div class="scroll"><table>
<thead><tr><th>Version</th><th>Architecture</th><th>Component</th><th>Size</th><th>Added</th></tr></thead>
<tbody>
${rows}</tbody>
</table></div>
</section>
`,
  });
}

/** The page of a source: how to get it, its files, what is built from it. @param isKnown whether a package has a page */
export function renderSourcePage(
  repository: RepositoryView,
  suite: SuiteView,
  page: SourcePage,
  isKnown: (name: string) => boolean,
): string {
  const root = '../../../';
  const rows = page.versions.map(
    ({ version, component, addedAt, files }) =>
      html`<section>
<h2>${version} <span class="version">${component}</span> <small>${day(addedAt)}</small></h2>
<div class="scroll"><table>
<thead><tr><th>File</th><th>Size</th></tr></thead>
<tbody>
${files.map(
  (file) =>
    html`<tr><td><a href="${root}${pathLink(file.filename)}">${file.filename.replace(/^.*\//, '')}</a><span class="digest">SHA256 ${file.sha256}</span></td><td class="number">${formatBytes(file.size)}</td></tr>\n`,
)}</tbody>
</table></div>
</section>
`,
  );
  const built = page.binaries.map(
    (name) => html`<li>${isKnown(name) ? html`<a href="../packages/${pathLink(name)}.html">${name}</a>` : name}</li>\n`,
  );
  return renderShell(repository, {
    title: `source of ${page.name} · ${suite.name} · ${repository.label}`,
    root,
    trail: [
      { text: suite.name, link: '../index.html' },
      { text: 'sources', link: '../sources.html' },
      { text: page.name, link: `${pathLink(page.name)}.html` },
    ],
    body: html`<h1>${page.name} <span class="version">${page.version}</span></h1>
<p class="lead">Source package</p>
<section>
<h2>Get it</h2>
${command(`apt source ${page.name}`)}<p>For this, <code>Types:</code> in the .sources file must read <code>deb deb-src</code>.</p>
</section>
${built.length === 0 ? undefined : html`<section>\n<h2>Packages built from it</h2>\n<ul class="plain">\n${built}</ul>\n</section>\n`}${rows}${renderSourceFacts(page)}`,
  });
}

function renderSourceFacts(page: SourcePage): Html {
  const names = ['Maintainer', 'Uploaders', 'Homepage', 'Vcs-Browser', 'Standards-Version', 'Build-Depends'];
  const facts = names.flatMap((name) => {
    const value = getField(page.control, name)?.trim().replaceAll(/\s+/g, ' ').slice(0, MAX_FACT_CHARACTERS);
    if (value === undefined || value === '') return [];
    const link = /^(?:Homepage|Vcs-Browser)$/.test(name) ? safeLink(value) : undefined;
    const shown = link === undefined ? value : html`<a href="${link}" rel="nofollow noopener noreferrer">${value}</a>`;
    return [html`<dt>${name}</dt><dd>${shown}</dd>\n`];
  });
  return html`<aside>\n<dl>\n${facts}</dl>\n</aside>\n`;
}

/** Every source of a suite. */
export function renderSourceList(
  repository: RepositoryView,
  suite: SuiteView,
  sources: readonly { readonly name: string; readonly version: string }[],
): string {
  return renderShell(repository, {
    title: `sources · ${suite.name} · ${repository.label}`,
    root: '../../',
    trail: [
      { text: suite.name, link: 'index.html' },
      { text: 'sources', link: 'sources.html' },
    ],
    body: html`<h1>Source packages</h1>
<section>
<p class="search" hidden><input type="search" placeholder="Search by name" aria-label="Search source packages" autocomplete="off" spellcheck="false"></p>
<p id="count">${counted(sources.length, 'source package')}</p>
<ul class="list" id="packages">
${renderRows(
  sources.map((one) => ({ ...one, synopsis: '' })),
  'sources/',
)}</ul>
</section>
`,
  });
}
