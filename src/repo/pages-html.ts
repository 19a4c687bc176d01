/**
 * HTML from texts that nobody vouches for.
 *
 * Secret: what a text may do to a page: nothing. Whatever is put into an `html` template is escaped, and control characters and
 * the marks that turn the direction of writing are shown as what they are: strange (Unicode TR 36). Ruled by the WHATWG HTML
 * standard, and by Policy 5.6.13 for how descriptions are laid out.
 */

/** Markup that is right as it stands. */
export interface Html {
  readonly html: string;
}

type Value = string | number | Html | readonly Html[] | undefined;

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Controls but tab and newline, what XML forbids, and what reorders or hides text. */
const STRANGE =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufffe\uffff]|\p{Surrogate}/gu;

/** Text with everything strange replaced by U+FFFD; right for HTML and for XML 1.0. */
export function plainText(text: string): string {
  return text.replace(STRANGE, '\ufffd');
}

/** For the content of an element or a quoted attribute, in HTML and in XML. */
export function escapeText(text: string): string {
  return plainText(text).replace(/[&<>"']/g, (character) => ENTITIES[character]!);
}

/** A template whose values are escaped unless they are markup already; `undefined` leaves nothing. */
export function html(strings: TemplateStringsArray, ...values: readonly Value[]): Html {
  let text = strings[0]!;
  for (const [index, value] of values.entries()) text += markup(value) + strings[index + 1]!;
  return { html: text };
}

function markup(value: Value): string {
  if (value === undefined) return '';
  if (typeof value === 'string') return escapeText(value);
  if (typeof value === 'number') return String(value);
  if ('html' in value) return value.html;
  return value.map((one) => one.html).join('');
}

/** The address of a link that a package names; undefined for anything but http and https. */
export function safeLink(text: string): string | undefined {
  if (!/^https?:\/\//i.test(text.trim()) || text.length > 2000) return undefined;
  try {
    const url = new URL(text.trim());
    return url.username === '' && url.password === '' ? url.href : undefined;
  } catch {
    return undefined;
  }
}

/** A path as an address relative to a page: each segment escaped, also '+', which some web servers take for a blank. */
export function pathLink(path: string): string {
  return path
    .split('/')
    .map((segment) => encodeURIComponent(segment).replaceAll("'", '%27'))
    .join('/');
}

/** The synopsis: the first line of a Description. */
export function synopsisOf(description: string): string {
  return (description.split('\n', 1)[0] ?? '').trim();
}

/** The extended description of a package: paragraphs, lists and verbatim lines. */
export function renderDescription(description: string): Html[] {
  const blocks: Html[] = [];
  let paragraph: string[] = [];
  let verbatim: string[] = [];
  let items: string[] = [];
  const flush = () => {
    if (paragraph.length > 0) blocks.push(html`<p>${paragraph.join(' ')}</p>\n`);
    if (verbatim.length > 0) blocks.push(html`<pre>${verbatim.join('\n')}</pre>\n`);
    if (items.length > 0) blocks.push(html`<ul>${items.map((item) => html`<li>${item}</li>`)}</ul>\n`);
    [paragraph, verbatim, items] = [[], [], []];
  };
  for (const line of description.split('\n').slice(1)) {
    const text = line.slice(1);
    const bullet = /^\s*[*+-] +(?=\S)(.*)$/.exec(text);
    if (text === '.' || text.trim() === '') flush();
    else if (bullet) {
      if (items.length === 0) flush();
      items.push(bullet[1]!);
    } else if (items.length > 0 && /^\s/.test(text)) items[items.length - 1] += ` ${text.trim()}`;
    else if (/^\s/.test(text)) {
      if (verbatim.length === 0) flush();
      verbatim.push(text);
    } else {
      if (paragraph.length === 0) flush();
      paragraph.push(text);
    }
  }
  flush();
  return blocks;
}
