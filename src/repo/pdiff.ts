/**
 * Patches from one index to the next (pdiffs), so that clients that have an older one fetch only what changed.
 *
 * Secret: what apt takes for a patch. The script is that of `diff --ed` (ed(1): a, c and d, the last line first; apt's rred knows
 * no more), and Packages.diff/Index names the states from which patches lead on, each patch to the next state
 * (DebianRepository/Format, "diff indices"). Both texts are sorted by name, so that finding what changed takes one pass.
 */
import { createHash } from 'node:crypto';

/** One patch: from the state `from` to the next one, or to the current. */
export interface Patch {
  readonly name: string;
  readonly from: Sized;
  /** The script. */
  readonly patch: Sized;
  /** As it is fetched, by gzip. */
  readonly download: Sized;
}

interface Sized {
  readonly sha256: string;
  readonly size: number;
}

/** The text of Packages.diff/Index; `patches` are given oldest first. */
export function renderPatchIndex(current: Sized, patches: readonly Patch[]): string {
  const list = (field: string, pick: (patch: Patch) => Sized, suffix = '') =>
    `${field}:\n${patches.map((one) => ` ${pick(one).sha256} ${pick(one).size} ${one.name}${suffix}\n`).join('')}`;
  return [
    `SHA256-Current: ${current.sha256} ${current.size}\n`,
    list('SHA256-History', (one) => one.from),
    list('SHA256-Patches', (one) => one.patch),
    list('SHA256-Download', (one) => one.download, '.gz'),
  ].join('');
}

/** What `renderPatchIndex` wrote; nothing for any other text. */
export function parsePatchIndex(text: string): Patch[] {
  const section = (field: string) => new RegExp(`^${field}:\\n((?: .*\\n)*)`, 'm').exec(text)?.[1] ?? '';
  const read = (field: string) =>
    [...section(field).matchAll(/^ ([0-9a-f]{64}) (\d+) (\S+)$/gm)].map(([, sha256 = '', size, name = '']) => ({
      name,
      file: { sha256, size: Number(size) },
    }));
  const [history, patches, downloads] = [read('SHA256-History'), read('SHA256-Patches'), read('SHA256-Download')];
  return history.flatMap(({ name, file }) => {
    const patch = patches.find((one) => one.name === name)?.file;
    const download = downloads.find((one) => one.name === `${name}.gz`)?.file;
    return patch && download ? [{ name, from: file, patch, download }] : [];
  });
}

/** Names a patch after both of its ends: it is the same whenever it is made. */
export function patchName(from: string, to: string): string {
  return createHash('sha256').update(`${from} ${to}`).digest('hex').slice(0, 24);
}

/**
 * The patches that a client may still need. What is older than a state that has come back is left out: a chain has no circles.
 * @param patches oldest first @param limit how many @param maxBytes together, as fetched: a whole index is not larger
 */
export function boundPatches(patches: readonly Patch[], current: string, limit: number, maxBytes: number): Patch[] {
  const back = patches.findLastIndex((one) => one.from.sha256 === current);
  const after = patches.slice(back + 1);
  const kept = after.slice(Math.max(0, after.length - limit));
  let bytes = kept.reduce((sum, one) => sum + one.download.size, 0);
  while (kept.length > 0 && bytes > maxBytes) bytes -= kept.shift()!.download.size;
  return kept;
}

/** Lines `at` .. `at + count` of the old text (from 0) are replaced. */
interface Edit {
  at: number;
  count: number;
  readonly lines: Buffer[];
}

const NEWLINE = 10;

/** The script that makes `after` of `before`; both are stanzas sorted by their first line. */
export function edScript(before: Buffer, after: Buffer): Buffer {
  const from = commonStanzas(before, after);
  const edits: Edit[] = [];
  let line = countLines(before, 0, from);
  const olds = groups(before, from);
  const news = groups(after, from);
  let old = olds.next().value;
  let fresh = news.next().value;
  const put = (at: number, count: number, text: Buffer) => {
    const last = edits.at(-1);
    if (last && last.at + last.count === at) {
      last.count += count;
      last.lines.push(text);
    } else edits.push({ at, count, lines: [text] });
  };
  while (old || fresh) {
    const order = !old ? 1 : !fresh ? -1 : Buffer.compare(old.name, fresh.name);
    if (order === 0) {
      const same = old!.text.equals(fresh!.text);
      const lines = countLines(old!.text, 0, old!.text.length);
      if (!same) {
        const [head, tail] = commonLines(old!.text, fresh!.text);
        const cut = (text: Buffer) => text.subarray(head, text.length - tail);
        put(line + countLines(old!.text, 0, head), countNewlines(cut(old!.text)), cut(fresh!.text));
      }
      line += lines;
    } else if (order < 0) {
      const lines = countLines(old!.text, 0, old!.text.length);
      put(line, lines, Buffer.alloc(0));
      line += lines;
    } else put(line, 0, fresh!.text);
    if (order <= 0) old = olds.next().value;
    if (order >= 0) fresh = news.next().value;
  }
  return Buffer.concat(edits.reverse().flatMap(renderEdit));
}

function renderEdit({ at, count, lines }: Edit): Buffer[] {
  const text = Buffer.concat(lines);
  if (count === 0 && text.length === 0) return [];
  const range = count <= 1 ? `${at + 1}` : `${at + 1},${at + count}`;
  if (text.length === 0) return [Buffer.from(`${range}d\n`)];
  return [Buffer.from(count === 0 ? `${at}a\n` : `${range}c\n`), text, Buffer.from('.\n')];
}

/** Bytes of the whole stanzas that both texts begin with. */
function commonStanzas(a: Buffer, b: Buffer): number {
  const same = commonPrefix(a, b);
  if (same === a.length && same === b.length) return same;
  // back to the beginning of the stanza in which they part
  const end = same < 2 ? -1 : a.lastIndexOf('\n\n', same - 2);
  return end === -1 ? 0 : end + 2;
}

function commonPrefix(a: Buffer, b: Buffer): number {
  const length = Math.min(a.length, b.length);
  const step = 65_536;
  let at = 0;
  while (at + step <= length && a.compare(b, at, at + step, at, at + step) === 0) at += step;
  while (at < length && a[at] === b[at]) at += 1;
  return at;
}

/** Bytes of the whole lines that both texts begin and end with; both end with a line break. */
function commonLines(a: Buffer, b: Buffer): [head: number, tail: number] {
  const head = a.subarray(0, commonPrefix(a, b)).lastIndexOf(NEWLINE) + 1;
  const [restA, restB] = [a.subarray(head), b.subarray(head)];
  const length = Math.min(restA.length, restB.length);
  let same = 0;
  while (same < length && restA.at(-1 - same) === restB.at(-1 - same)) same += 1;
  const isWhole = isLineStart(restA, restA.length - same) && isLineStart(restB, restB.length - same);
  const partLine = isWhole ? 0 : restA.subarray(restA.length - same).indexOf(NEWLINE) + 1;
  return [head, same - partLine];
}

function isLineStart(text: Buffer, at: number): boolean {
  return at === 0 || text[at - 1] === NEWLINE;
}

interface Group {
  /** The first line. */
  readonly name: Buffer;
  readonly text: Buffer;
}

/** Runs of stanzas with the same first line. */
function* groups(text: Buffer, from: number): Generator<Group, undefined> {
  let start = from;
  let name: Buffer | undefined;
  for (let at = from; at < text.length; ) {
    const own = text.subarray(at, text.indexOf(NEWLINE, at));
    if (name !== undefined && !name.equals(own)) {
      yield { name, text: text.subarray(start, at) };
      start = at;
    }
    name = own;
    const end = text.indexOf('\n\n', at);
    at = end === -1 ? text.length : end + 2;
  }
  if (name !== undefined) yield { name, text: text.subarray(start) };
  return undefined;
}

function countNewlines(text: Buffer): number {
  return countLines(text, 0, text.length);
}

function countLines(text: Buffer, from: number, to: number): number {
  let count = 0;
  for (let at = text.indexOf(NEWLINE, from); at !== -1 && at < to; at = text.indexOf(NEWLINE, at + 1)) count += 1;
  return count;
}
