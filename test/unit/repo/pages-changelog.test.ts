import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { silentLog } from '../../../src/core/log.ts';
import { type DebEntry, writeDeb } from '../../../src/deb/archive.ts';
import { paragraph } from '../../../src/deb/control.ts';
import { newestEntries, readChangelog } from '../../../src/repo/pages-changelog.ts';
import { createWorld, type World } from '../../support/world.ts';

const entry = (version: string, text = 'x') =>
  `hello (${version}) unstable; urgency=low\n\n  * ${text}\n\n -- T <t@example.org>  Mon, 01 Jan 2024 00:00:00 +0000\n`;

describe('the newest entries of a changelog', () => {
  it('are whole', () => {
    const text = [entry('3'), entry('2'), entry('1')].join('\n');
    expect(newestEntries(text)).toBe(text.trimEnd());
    expect(newestEntries(text, text.length - 10)).toBe([entry('3'), entry('2')].join('\n').trimEnd());
    expect(newestEntries(entry('1', 'y'.repeat(500)), 100)).toHaveLength(100);
  });

  it('are none of what is no changelog of Debian', () => {
    expect(newestEntries('2020-01-01  Somebody\n\n\t* file.c: changed\n')).toBe('');
    expect(newestEntries('')).toBe('');
  });
});

describe('the changelog of a package', () => {
  let world: World;
  let folder: string;

  beforeAll(async () => {
    world = await createWorld();
    folder = await mkdtemp(join(tmpdir(), 'buildkit-test-'));
  });

  afterAll(async () => {
    await rm(folder, { recursive: true });
    await world[Symbol.asyncDispose]();
  });

  async function changelogOf(files: Readonly<Record<string, string | Buffer>>): Promise<string> {
    const entries: DebEntry[] = Object.entries(files).map(([name, source]) => ({
      path: `/usr/share/doc/${name}`,
      type: 'file',
      mode: 0o644,
      source: { data: source },
    }));
    const control = {
      Package: 'hello',
      Version: '1',
      Architecture: 'all',
      Maintainer: 'T <t@e.org>',
      Description: 'x',
    };
    const spec = { control: paragraph(Object.entries(control)), entries };
    await writeDeb(world.context, join(folder, 'x.deb'), spec, { compression: 'gzip', sourceDateEpoch: 1 });
    return readChangelog(world.context, folder, { kind: 'deb', name: 'hello', filename: 'x.deb', size: 1 });
  }

  it('is that of Debian, packed or not, or that of a native package', async () => {
    const upstream = gzipSync('1.0 was good\n');
    const both = { 'hello/changelog.gz': upstream, 'hello/changelog.Debian.gz': gzipSync(entry('1-1')) };
    expect(await changelogOf(both)).toBe(entry('1-1').trimEnd());
    expect(await changelogOf({ 'hello/changelog.Debian': entry('1-2') })).toBe(entry('1-2').trimEnd());
    expect(await changelogOf({ 'hello/changelog.gz': gzipSync(entry('1')) })).toBe(entry('1').trimEnd());
    expect(await changelogOf({ 'hello/changelog.gz': upstream })).toBe('');
    expect(await changelogOf({ 'other/changelog.gz': gzipSync(entry('1')) })).toBe('');
  });

  it('is little of what is endless, and nothing of what is broken', async () => {
    const bomb = gzipSync(entry('9') + '\n'.repeat(50_000_000));
    expect(await changelogOf({ 'hello/changelog.gz': bomb })).toBe(entry('9').trimEnd());
    expect(await changelogOf({ 'hello/changelog.gz': 'no gzip' })).toBe('');
    await writeFile(join(folder, 'x.deb'), 'no package');
    const item = { kind: 'deb' as const, name: 'hello', filename: 'x.deb', size: 1 };
    expect(await readChangelog(world.context, folder, item)).toBe('');
    expect(await readChangelog(world.context, folder, { ...item, filename: 'missing.deb' })).toBe('');
    const context = { ...world.context, log: silentLog(), signal: AbortSignal.abort(new Error('stop')) };
    await expect(readChangelog(context, folder, { ...item, filename: 'missing.deb' })).rejects.toThrow('stop');
  });
});
