// biome-ignore-all lint/suspicious/noTemplateCurlyInString: a format of dpkg-query
/** deb822 on real data: dpkg's status file and a whole index of Debian's archive; dpkg-deb and debian-control as second opinions. */
import { createReadStream } from 'node:fs';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
// @ts-expect-error: it has no types
import debianControl from 'debian-control';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/core/errors.ts';
import { run } from '../../src/core/run.ts';
import {
  formatControl,
  formatParagraph,
  getField,
  type Paragraph,
  parseControl,
  readParagraphs,
} from '../../src/deb/control.ts';
import { openPackagesIndex } from '../support/packages-index.ts';
import { createWorld } from '../support/world.ts';

type Values = Record<string, string | string[]>;

/** debian-control 1.0.0, which reads well-formed paragraphs right but for blanks at the ends of lines. */
const other: { parse(text: string): Values } = debianControl;

/** A paragraph as debian-control gives it. */
function asOther(paragraph: Paragraph): Values {
  return Object.fromEntries(
    paragraph.fields.map(({ name, value }) => [
      name,
      value.includes('\n') ? value.split('\n').map((line) => line.trim()) : value,
    ]),
  );
}

async function collect(source: AsyncIterable<Uint8Array>): Promise<Paragraph[]> {
  const found: Paragraph[] = [];
  for await (const paragraph of readParagraphs(source)) found.push(paragraph);
  return found;
}

describe('reading deb822', () => {
  it("prints dpkg's status file back byte for byte, each paragraph and the whole", async () => {
    const file = '/var/lib/dpkg/status';
    const text = await readFile(file, 'utf8');
    const read = parseControl(text, { file });
    const { stdout } = await run({}, 'dpkg-query', ['--show', '--showformat=${binary:Package}\\n']);
    expect(read.filter((paragraph) => !/^(?:deinstall|purge) /.test(getField(paragraph, 'Status') ?? '')).length).toBe(
      stdout.split('\n').length - 1,
    );
    expect(read.map((paragraph) => `${formatParagraph(paragraph)}\n`).join('') === text).toBe(true);
    expect(formatControl(read) === text).toBe(true);
    expect(await collect(createReadStream(file))).toEqual(read);
  });

  it('prints a whole Packages index back byte for byte, and reads it as debian-control does', {
    timeout: 300_000,
  }, async () => {
    await using world = await createWorld();
    await using index = await openPackagesIndex(world.context, world.path);
    const chunks: Buffer[] = [];
    for await (const chunk of index.stdout) chunks.push(chunk as Buffer);
    await index.ended;
    const text = Buffer.concat(chunks).toString('utf8');
    const paragraphs = text.split(/\n\n+/).filter((each) => each !== '');
    expect(paragraphs.length).toBeGreaterThan(50_000);
    let count = 0;
    const wrong: string[] = [];
    for await (const read of readParagraphs(chunks)) {
      const original = paragraphs[count]!.replace(/\n?$/, '\n');
      if (formatParagraph(read) !== original) wrong.push(original);
      if (!isDeepStrictEqual(asOther(read), { ...other.parse(original) })) wrong.push(original);
      count += 1;
    }
    expect(wrong).toEqual([]);
    expect(count).toBe(paragraphs.length);
    expect(formatControl(parseControl(text)) === text).toBe(true);
  });

  it('takes what dpkg-deb takes in a control file, and refuses what it refuses', { timeout: 120_000 }, async () => {
    await using world = await createWorld();
    const root = join(world.path, 'root');
    await mkdir(join(root, 'DEBIAN'), { recursive: true });
    await chmod(root, 0o755);
    await chmod(join(root, 'DEBIAN'), 0o755);
    const control = join(root, 'DEBIAN/control');
    const good = 'Package: hello\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: x\n long\n';
    const cases: [string, string][] = [
      ['as it is', good],
      ['CRLF', good.replaceAll('\n', '\r\n')],
      ['no final newline', good.trimEnd()],
      ['blanks around', good.replace('Package: hello', 'Package:  \t hello  ')],
      ['no blank after the colon', good.replaceAll(': ', ':')],
      ['verbatim lines', good.replace(' long', '   long\n .\n\tx')],
      ['a comment', good.replace('Version', '# comment\nVersion')],
      ['a comment in a value', good.replace(' long', ' long\n# comment\n more')],
      ['a line of blanks', good.replace(' long', ' long\n  \n more')],
      ['no colon', good.replace('Version', 'nonsense\nVersion')],
      ['a field twice', `${good}Version: 2\n`],
      ['two paragraphs', `${good}\n${good}`],
      ['continuation first', ` x\n${good}`],
      ['no name', `${good}: x\n`],
      ['a dash in front', `${good}-X: y\n`],
      ['a blank before the colon', good.replace('Version:', 'Version :')],
      ['empty', ''],
    ];
    const table: [string, boolean, boolean][] = [];
    for (const [what, text] of cases) {
      await writeFile(control, text);
      const { exitCode } = await run({}, 'dpkg-deb', ['--build', root, join(world.path, 'x.deb')], {
        okExitCodes: [2],
      });
      table.push([what, exitCode === 0, ourOpinion(text)]);
    }
    expect(table.filter(([, theirs, ours]) => theirs !== ours).map(([what]) => what)).toEqual([
      // completed when the package is written
      'no final newline',
      // dpkg skips blanks before the colon; Policy 5.1 has none there, and apt takes the field for another
      'a blank before the colon',
    ]);
    expect(table.filter(([, theirs]) => theirs).length).toBeGreaterThan(5);
  });
});

/** Whether the text is the control file of a binary package for us. */
function ourOpinion(text: string): boolean {
  try {
    return parseControl(text, { comments: 'refuse' }).length === 1;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}
