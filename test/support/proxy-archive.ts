/** A small signed archive in memory, published to a fake upstream in one or in several steps. */
import { randomBytes } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { clearSign, detachSign, type GeneratedKey, generateKey } from '../../src/deb/openpgp.ts';
import { type FakeUpstream, sha256 } from './proxy-upstream.ts';

export interface ArchivePackage {
  readonly name: string;
  readonly version: string;
  readonly bytes: Buffer;
}

export interface ArchiveOptions {
  readonly date: Date;
  readonly packages: readonly ArchivePackage[];
  readonly key: GeneratedKey;
  readonly byHash?: boolean;
  readonly suite?: string;
  readonly validUntil?: Date;
}

/** Path below the archive to content. */
export interface Archive {
  readonly files: ReadonlyMap<string, Buffer>;
  readonly inRelease: string;
  readonly packagesText: string;
}

export function poolPath({ name, version }: Pick<ArchivePackage, 'name' | 'version'>): string {
  return `pool/main/${name[0]}/${name}/${name}_${version}_amd64.deb`;
}

export function randomPackage(name: string, size: number, version = '1.0-1'): ArchivePackage {
  return { name, version, bytes: randomBytes(size) };
}

export function testKey(name = 'Archive'): Promise<GeneratedKey> {
  return generateKey({
    name,
    email: 'archive@example.org',
    algorithm: 'ed25519',
    date: new Date('2026-01-01T00:00:00Z'),
  });
}

export async function buildArchive(options: ArchiveOptions): Promise<Archive> {
  const { date, packages, key, suite = 'stable' } = options;
  const root = `dists/${suite}`;
  const packagesText = packages
    .map((one) =>
      [
        `Package: ${one.name}`,
        `Version: ${one.version}`,
        'Architecture: amd64',
        'Maintainer: Nobody <nobody@example.org>',
        `Filename: ${poolPath(one)}`,
        `Size: ${one.bytes.length}`,
        `SHA256: ${sha256(one.bytes)}`,
        'Description: test',
        '',
        '',
      ].join('\n'),
    )
    .join('');
  const files = new Map<string, Buffer>(packages.map((one) => [poolPath(one), one.bytes]));
  const indexes = new Map<string, Buffer>([
    ['main/binary-amd64/Packages', Buffer.from(packagesText)],
    ['main/binary-amd64/Packages.gz', gzipSync(packagesText)],
  ]);
  const lines = [...indexes].map(([path, bytes]) => ` ${sha256(bytes)} ${bytes.length} ${path}`);
  const release = [
    'Origin: Test',
    'Label: Test',
    `Suite: ${suite}`,
    `Codename: ${suite}`,
    `Date: ${date.toUTCString()}`,
    ...(options.validUntil ? [`Valid-Until: ${options.validUntil.toUTCString()}`] : []),
    ...(options.byHash ? ['Acquire-By-Hash: yes'] : []),
    'Architectures: amd64',
    'Components: main',
    'Description: test',
    'SHA256:',
    ...lines,
    '',
  ].join('\n');
  const signing = [{ key: key.privateKeyArmored }];
  const inRelease = await clearSign(release, signing, { date });
  const signature = await detachSign(release, signing, { date });
  for (const [path, bytes] of indexes) {
    files.set(`${root}/${path}`, bytes);
    if (options.byHash) files.set(`${root}/main/binary-amd64/by-hash/SHA256/${sha256(bytes)}`, bytes);
  }
  files.set(`${root}/InRelease`, Buffer.from(inRelease));
  files.set(`${root}/Release`, Buffer.from(release));
  files.set(`${root}/Release.gpg`, Buffer.from(signature));
  return { files, inRelease, packagesText };
}

/** Puts the files (those that match) below `/archive` of the upstream. */
export function publish(upstream: FakeUpstream, archive: Archive, only: RegExp = /./, base = '/archive'): void {
  for (const [path, bytes] of archive.files) if (only.test(path)) upstream.put(`${base}/${path}`, bytes);
}
