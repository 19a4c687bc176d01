/** Our .sources entries through the real apt, and the one-line style read as apt reads it. */
import { writeFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { exportPublic, generateKey } from '../../src/deb/openpgp.ts';
import { type AptSource, formatSource, parseOneLine, parseSources } from '../../src/deb/sources.ts';
import { complaints, createAptRoot } from '../support/apt-root.ts';

/** What apt would download for these sources. */
async function uris(sources: string, asOneLine = false): Promise<string[]> {
  await using apt = await createAptRoot({
    sources: asOneLine ? '' : sources,
    configuration: ['APT::Architectures { "amd64"; "arm64"; };'],
  });
  if (asOneLine) await writeFile(`${apt.path}/etc/apt/sources.list`, sources);
  const result = await apt.run('apt-get', 'update', '--print-uris');
  expect([result.exitCode, complaints(result)]).toEqual([0, []]);
  return result.stdout
    .split('\n')
    .filter((line) => line !== '')
    .sort();
}

async function releases(sources: string): Promise<string[]> {
  return (await uris(sources)).filter((line) => line.includes("/InRelease'"));
}

const LINES = [
  'deb http://127.0.0.1:1/debian bookworm main contrib # a comment',
  'deb [arch=amd64,arm64 signed-by=/nowhere/key.gpg by-hash=no] https://example.org/x/ sid main',
  'deb-src [trusted=yes] http://127.0.0.1:1/debian bookworm main',
  'deb [allow-insecure=yes lang+=de] file:/srv/apt ./',
  // not inrelease-path: apt 2.6 reads that in the one-line style only, against its manual
  'deb [lang=none check-date=no pdiffs=no target=Packages] http://127.0.0.1:1/y trixie/updates main',
];

it.each(LINES)('means the same in both styles: %s', { timeout: 60_000 }, async (line) => {
  const read = parseOneLine(line);
  const theirs = await uris(`${line}\n`, true);
  expect(theirs.length).toBeGreaterThan(0);
  expect(await uris(read.map(formatSource).join('\n'))).toEqual(theirs);
  expect(parseSources(read.map(formatSource).join('\n'))).toEqual(read);
});

it('writes a key into an entry in a form that apt takes', { timeout: 60_000 }, async () => {
  const { privateKeyArmored } = await generateKey({
    name: 'Test',
    email: 'test@example.org',
    date: new Date('2026-01-02T03:04:05Z'),
  });
  const signedBy = await exportPublic(privateKeyArmored, 'armored');
  const source: AptSource = {
    types: ['deb'],
    uris: ['http://127.0.0.1:1'],
    suites: ['bookworm'],
    components: ['main'],
    signedBy,
  };
  expect(await releases(formatSource(source))).toEqual([
    expect.stringContaining("'http://127.0.0.1:1/dists/bookworm/InRelease'"),
  ]);
  expect(parseSources(formatSource(source))).toEqual([source]);
});

it('leaves out a source that is off, as apt does', { timeout: 60_000 }, async () => {
  const on: AptSource = { types: ['deb'], uris: ['http://127.0.0.1:1/on'], suites: ['bookworm'], components: ['main'] };
  const text = [on, { ...on, uris: ['http://127.0.0.1:1/off'], enabled: false }].map(formatSource).join('\n');
  expect(await releases(text)).toEqual([expect.stringContaining('/on/dists/')]);
});
