/**
 * The look of the pages and what they can do with JavaScript: two small files, no fonts or hosts from outside.
 *
 * Secret: all CSS and all script. Every page reads without either; the script adds copy buttons and the search.
 */

/** In place of the repository's address where nobody told it: the script puts in the address of the page. */
export const UNKNOWN_URL = 'https://apt.example.org/';

export const STYLE = `:root {
  color-scheme: light dark;
  --page: #f6f6f3; --card: #ffffff; --soft: #f1f0ec; --text: #1c1d22; --muted: #5f636e; --line: #e2e1dc;
  --accent: #a50e3d; --accent-soft: #fbe9ee; --shadow: 0 1px 2px rgb(0 0 0 / 4%), 0 4px 16px rgb(0 0 0 / 4%);
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #121317; --card: #1a1c22; --soft: #22252d; --text: #e8e9ed; --muted: #9ba1ae; --line: #2d3039;
    --accent: #ff8fae; --accent-soft: #3a1d28; --shadow: none;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, Cantarell, "Noto Sans", "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere;
}
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; text-underline-offset: 3px; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 4px; }
header, main, footer { max-width: 64rem; margin: 0 auto; padding: 0 1.25rem; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: .25rem .6rem; padding-top: 1.25rem; font-size: .95rem; }
header a { color: var(--muted); }
header .brand { display: inline-flex; align-items: center; gap: .55rem; color: var(--text); font-weight: 650; }
header .brand::before {
  content: ""; width: .95rem; height: .95rem; border-radius: .28rem; background: var(--accent);
  box-shadow: inset -.3rem -.3rem 0 rgb(0 0 0 / 18%);
}
header .step::before { content: "/"; margin-right: .6rem; color: var(--line); }
main { padding-top: 1.5rem; padding-bottom: 2rem; }
h1 { margin: 0; font-size: clamp(1.6rem, 5vw, 2.2rem); line-height: 1.2; letter-spacing: -.015em; }
h2 { margin: 0 0 .8rem; font-size: 1.15rem; letter-spacing: -.005em; }
h2 small { color: var(--muted); font-size: .85rem; font-weight: 400; }
h3 { margin: 1.2rem 0 .4rem; font-size: .95rem; }
.lead { margin: .4rem 0 0; color: var(--muted); font-size: 1.05rem; }
.meta { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: .7rem 0 0; padding: 0; list-style: none; color: var(--muted); font-size: .9rem; }
section, aside { margin-top: 1.5rem; padding: 1.25rem 1.35rem 1.35rem; background: var(--card); border: 1px solid var(--line); border-radius: 12px; box-shadow: var(--shadow); }
section > :last-child, aside > :last-child { margin-bottom: 0; }
p { margin: .6rem 0; }
code, pre, kbd { font-family: var(--mono); font-size: .88em; }
pre { margin: .5rem 0 .9rem; padding: .75rem .9rem; background: var(--soft); border-radius: 8px; line-height: 1.5; overflow-x: auto; overflow-wrap: normal; white-space: pre; }
pre.wrap { max-height: 28rem; overflow-y: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
.plain { margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1rem; }
.copy { position: relative; }
.copy pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.copy pre.entry { white-space: pre; overflow-wrap: normal; }
.copy.on pre { padding-right: 5rem; }
.copy button {
  position: absolute; top: .42rem; right: .45rem; padding: .2rem .65rem; border: 1px solid var(--line); border-radius: 6px;
  background: var(--card); color: var(--muted); font: inherit; font-size: .78rem; cursor: pointer;
}
.copy button:hover { color: var(--accent); border-color: var(--accent); }
ol.steps { margin: 0; padding: 0; list-style: none; counter-reset: step; }
ol.steps > li { position: relative; padding-left: 2.4rem; counter-increment: step; }
ol.steps > li::before {
  content: counter(step); position: absolute; left: 0; top: .05rem; width: 1.6rem; height: 1.6rem; border-radius: 50%;
  background: var(--accent-soft); color: var(--accent); font-size: .85rem; font-weight: 650; line-height: 1.6rem; text-align: center;
}
details { margin-top: .6rem; }
summary { cursor: pointer; color: var(--muted); }
summary:hover { color: var(--accent); }
.version { display: inline-block; padding: .05rem .5rem; border-radius: 6px; background: var(--soft); color: var(--muted); font: .82rem/1.5 var(--mono); }
h1 .version { margin-left: .35rem; font-size: .95rem; vertical-align: .3rem; letter-spacing: 0; }
.search input {
  width: 100%; padding: .65rem .9rem; border: 1px solid var(--line); border-radius: 8px; background: var(--page); color: var(--text);
  font: inherit; appearance: none;
}
.search input:focus { outline: 2px solid var(--accent); outline-offset: -1px; border-color: transparent; }
#count { margin: .6rem 0 .3rem; color: var(--muted); font-size: .9rem; }
.list { margin: 0; padding: 0; list-style: none; }
.list li { display: grid; grid-template-columns: minmax(9rem, 17rem) minmax(6rem, 11rem) 1fr; gap: 0 1rem; align-items: baseline; padding: .5rem 0; border-top: 1px solid var(--line); }
.list li:first-child { border-top: 0; }
.list li[hidden], .names[hidden] { display: none; }
.list a { font-weight: 600; }
.list .about { color: var(--muted); font-size: .92rem; }
.list .version { justify-self: start; }
.names { display: flex; flex-wrap: wrap; gap: .4rem; margin: .8rem 0 0; padding: 0; list-style: none; }
.names a, .button { display: inline-block; padding: .25rem .7rem; border: 1px solid var(--line); border-radius: 8px; background: var(--card); color: var(--text); font-size: .92rem; }
.names a:hover, .button:hover { border-color: var(--accent); color: var(--accent); text-decoration: none; }
.names small { color: var(--muted); }
.downloads { display: flex; flex-wrap: wrap; gap: .4rem .5rem; align-items: center; }
.button small { color: var(--muted); }
.columns { display: grid; grid-template-columns: minmax(0, 1fr) 19rem; gap: 0 1.5rem; align-items: start; }
.columns > div { min-width: 0; }
dl { margin: 0; font-size: .92rem; }
dt { margin-top: .75rem; color: var(--muted); font-size: .8rem; }
dt:first-child { margin-top: 0; }
dd { margin: 0; }
.relations dd { margin-bottom: .2rem; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .92rem; }
th { padding: 0 1rem .4rem 0; color: var(--muted); font-size: .8rem; font-weight: 500; text-align: left; }
td { padding: .5rem 1rem .5rem 0; border-top: 1px solid var(--line); vertical-align: baseline; overflow-wrap: normal; }
td.number { white-space: nowrap; }
.digest { display: block; color: var(--muted); font: .72rem/1.5 var(--mono); overflow-wrap: anywhere; }
.suites { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; margin: 1.5rem 0 0; padding: 0; list-style: none; }
.suites a { display: block; height: 100%; padding: 1.1rem 1.25rem; border: 1px solid var(--line); border-radius: 12px; background: var(--card); box-shadow: var(--shadow); color: var(--text); }
.suites a:hover { border-color: var(--accent); text-decoration: none; }
.suites strong { display: block; font-size: 1.15rem; }
.suites span { color: var(--muted); font-size: .92rem; }
footer { padding-bottom: 2.5rem; color: var(--muted); font-size: .85rem; }
footer code { font-size: .8rem; }
@media (max-width: 46rem) {
  header, main, footer { padding-left: 1rem; padding-right: 1rem; }
  section, aside { padding: 1rem; }
  .columns { display: block; }
  .list li { display: flex; flex-wrap: wrap; gap: .1rem .6rem; }
  .list .about { flex-basis: 100%; }
  ol.steps > li { padding-left: 0; }
  ol.steps > li::before { display: inline-block; position: static; margin-right: .5rem; }
  ol.steps > li > p:first-child { display: inline; }
}
@media print { .copy button, .search { display: none; } section, aside { box-shadow: none; break-inside: avoid; } }
`;

export const SCRIPT = `'use strict';
const root = new URL(document.documentElement.dataset.root || './', location.href).href;
for (const block of document.querySelectorAll('.copy')) {
  const code = block.querySelector('pre');
  if (/^https?:/.test(root)) code.textContent = code.textContent.replaceAll('${UNKNOWN_URL}', root);
  if (!navigator.clipboard && !document.queryCommandSupported('copy')) continue;
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = 'Copy';
  button.addEventListener('click', async () => {
    const done = await copy(code).catch(() => false);
    button.textContent = done ? 'Copied' : 'Press Ctrl-C';
    setTimeout(() => { button.textContent = 'Copy'; }, 1600);
  });
  block.append(button);
  block.classList.add('on');
}

async function copy(element) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  }
  getSelection().selectAllChildren(element); // pages without https have no clipboard
  return document.execCommand('copy');
}

const search = document.querySelector('.search');
const list = document.querySelector('#packages');
if (search && list) {
  const input = search.querySelector('input');
  const count = document.querySelector('#count');
  const before = count.textContent;
  const index = search.dataset.index;
  let known;
  search.hidden = false;

  const words = () => input.value.toLowerCase().split(/\\s+/).filter((word) => word !== '');
  const fits = (text, all) => all.every((word) => text.includes(word));

  function filterRows(all) {
    let shown = 0;
    for (const row of list.children) {
      row.dataset.text ??= row.textContent.toLowerCase();
      row.hidden = !fits(row.dataset.text, all);
      if (!row.hidden) shown += 1;
    }
    count.textContent = all.length === 0 ? before : shown + ' found';
  }

  async function load() {
    const answer = await fetch(index);
    if (!answer.ok) throw new Error('no index');
    const text = await answer.text();
    return text.split('\\n').filter((line) => line !== '').map((line) => ({ line: line.toLowerCase(), parts: line.split('\\t') }));
  }

  function row([name, version, about]) {
    const item = document.createElement('li');
    const link = document.createElement('a');
    link.href = 'packages/' + encodeURIComponent(name) + '.html';
    link.textContent = name;
    const number = document.createElement('span');
    number.className = 'version';
    number.textContent = version;
    const text = document.createElement('span');
    text.className = 'about';
    text.textContent = about;
    item.append(link, number, text);
    return item;
  }

  async function searchIndex(all) {
    known ??= load();
    const entries = await known;
    if (all.join(' ') !== words().join(' ')) return; // typed on meanwhile
    const found = all.length === 0 ? [] : entries.filter((entry) => fits(entry.line, all));
    const best = found.filter((entry) => entry.parts[0].startsWith(all[0]));
    const sorted = [...best, ...found.filter((entry) => !best.includes(entry))].slice(0, 200);
    list.replaceChildren(...sorted.map((entry) => row(entry.parts)));
    document.querySelector('.names').hidden = all.length > 0;
    count.textContent = all.length === 0 ? before : found.length + ' found' + (found.length > 200 ? ', the first 200 shown' : '');
  }

  const update = () => {
    const all = words();
    if (index) searchIndex(all).catch(() => { known = undefined; count.textContent = 'the search does not work just now'; });
    else filterRows(all);
    const address = new URL(location.href);
    if (all.length === 0) address.searchParams.delete('q');
    else address.searchParams.set('q', input.value);
    history.replaceState(null, '', address);
  };
  input.addEventListener('input', update);
  document.addEventListener('keydown', (event) => {
    if (event.key !== '/' || event.target === input || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    input.focus();
  });
  const asked = new URL(location.href).searchParams.get('q');
  if (asked) {
    input.value = asked;
    update();
  }
}
`;
