/** .debs written and read in this process (gzip, zstd, none); what the real tools make of them is in test/tools. */
import { createHash } from 'node:crypto';
import { appendFile, chmod, mkdir, readdir, readFile, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import {
  type DebEntry,
  type DebSpec,
  extractDeb,
  listDeb,
  readDeb,
  readDebs,
  type WriteDebOptions,
  writeDeb,
} from '../../../src/deb/archive.ts';
import { formatParagraph } from '../../../src/deb/control.ts';
import {
  CONTROL_TEXT,
  createScratch,
  debSpec,
  file,
  type RawDeb,
  type RawTarEntry,
  rawAr,
  rawDeb,
  rawTar,
} from '../../support/deb-builder.ts';

const OPTIONS: WriteDebOptions = { sourceDateEpoch: 1_700_000_000, compression: 'zstd' };

async function refusal(work: Promise<unknown>): Promise<UserError> {
  const error = await work.then(
    () => new Error('taken as good'),
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(UserError);
  return error as UserError;
}

async function pathsOf(path: string): Promise<string[]> {
  const paths: string[] = [];
  for await (const one of listDeb({}, path)) paths.push(one.path);
  return paths;
}

describe('writeDeb', () => {
  it('returns what a reader then finds', async () => {
    await using scratch = await createScratch();
    const spec = debSpec([file('/etc/a.conf', 'a', { conffile: true }), file('/usr/b', 'bb', { mode: 0o4755 })], {
      scripts: { postinst: '#!/bin/sh\nexit 0\n' },
      triggers: 'interest x\n',
      fields: { Depends: 'x | y (>= 1)' },
    });
    for (const compression of ['zstd', 'gzip', 'none'] as const) {
      const written = await writeDeb({}, scratch.at(`${compression}.deb`), spec, { ...OPTIONS, compression });
      const bytes = await readFile(written.path);
      const digest = (name: string) => createHash(name).update(bytes).digest('hex');
      expect(written).toMatchObject({ name: 'sample', version: '1.0-1', architecture: 'all', size: bytes.length });
      expect([written.md5, written.sha1, written.sha256, written.sha512]).toEqual(
        ['md5', 'sha1', 'sha256', 'sha512'].map(digest),
      );
      const info = await readDeb({}, written.path);
      expect({ ...info.package, control: formatParagraph(info.package.control) }).toEqual({
        ...written,
        control: formatParagraph(written.control),
      });
      expect(info.conffiles).toEqual(['/etc/a.conf']);
      expect(Buffer.from(info.controlFiles.get('md5sums')!).toString()).toBe(
        '21ad0bd836b90d08f4cf640b4c298e7c  usr/b\n',
      );
      expect([...info.controlFiles.keys()]).toEqual(['conffiles', 'control', 'md5sums', 'postinst', 'triggers']);
      expect(await pathsOf(written.path)).toEqual(['/', '/etc', '/etc/a.conf', '/usr', '/usr/b']);
    }
  });

  it('takes content from files, memory and streams alike', async () => {
    await using scratch = await createScratch();
    const content = Buffer.from('0123456789'.repeat(300_000));
    const onDisk = await scratch.put('content', content);
    const sources: DebEntry['source'][] = [
      { file: onDisk },
      { data: content },
      {
        size: content.length,
        open: async function* () {
          for (let offset = 0; offset < content.length; offset += 65_537)
            yield content.subarray(offset, offset + 65_537);
        },
      },
    ];
    const digests: string[] = [];
    for (const [index, source] of sources.entries()) {
      const entry = { path: '/x', type: 'file', mode: 0o644, source: source! } as const;
      digests.push((await writeDeb({}, scratch.at(`${index}.deb`), debSpec([entry]), OPTIONS)).sha256);
    }
    expect(new Set(digests).size).toBe(1);
  });

  it('gives the same bytes on another day, in another folder, under another umask, from entries in another order', async () => {
    await using scratch = await createScratch();
    const digests: string[] = [];
    const umask = process.umask();
    try {
      for (const [folder, mask, time] of [
        ['one', 0o022, 1_800_000_000],
        ['two/deep', 0o077, 1_900_000_000],
      ] as const) {
        process.umask(mask);
        await mkdir(scratch.at(folder, 'src'), { recursive: true });
        const source = scratch.at(folder, 'src', 'f');
        await writeFile(source, 'content');
        await utimes(source, time, time);
        const entries = [
          { path: '/usr/f', type: 'file', mode: 0o644, source: { file: source } },
          file('/a'),
          file('/b'),
        ] as const;
        const ordered = mask === 0o077 ? entries.toReversed() : entries;
        const written = await writeDeb({}, scratch.at(folder, 'x.deb'), debSpec(ordered), OPTIONS);
        expect((await stat(written.path)).mode & 0o777).toBe(0o644);
        digests.push(written.sha256);
      }
    } finally {
      process.umask(umask);
    }
    expect(digests[0]).toBe(digests[1]);
  });

  it('counts Installed-Size as Policy does', async () => {
    await using scratch = await createScratch();
    const entries: DebEntry[] = [
      file('/a', Buffer.alloc(1025)), // 2
      file('/d/b', 'x'), // 1
      file('/d/empty', ''), // 0
      { path: '/d/l', type: 'symlink', mode: 0, link: 'b' }, // 1
      { path: '/d/h', type: 'hardlink', mode: 0, link: '/a' }, // 0
    ]; // and the folders / and /d: 2
    const written = await writeDeb({}, scratch.at('x.deb'), debSpec(entries), OPTIONS);
    expect(formatParagraph(written.control)).toContain('\nInstalled-Size: 6\n');
  });

  it('lists every regular file but conffiles in md5sums, each name of a file', async () => {
    await using scratch = await createScratch();
    const entries: DebEntry[] = [
      file('/b c', 'same'),
      { path: '/z', type: 'hardlink', mode: 0, link: '/b c' },
      { path: '/l', type: 'symlink', mode: 0, link: 'b' },
      file('/etc/c', 'x', { conffile: true }),
      file('/ü', ''),
    ];
    const { path } = await writeDeb({}, scratch.at('x.deb'), debSpec(entries), OPTIONS);
    const sums = Buffer.from((await readDeb({}, path)).controlFiles.get('md5sums')!).toString();
    expect(sums).toBe(
      '51037a4a37730f52c8732586d3aaa316  b c\n51037a4a37730f52c8732586d3aaa316  z\nd41d8cd98f00b204e9800998ecf8427e  ü\n',
    );
  });

  const file1 = (source: DebEntry['source']): DebSpec =>
    debSpec([{ path: '/usr/x', type: 'file', mode: 0o644, source: source! }]);
  const announce = (size: number, ...parts: string[]): DebEntry['source'] => ({
    size,
    open: async function* () {
      for (const part of parts) yield Buffer.from(part);
    },
  });
  it.each<[string, DebSpec, string]>([
    ['a missing source', file1({ file: '/nonexistent/x' }), 'source-missing'],
    ['a folder as source', file1({ file: '/' }), 'source-not-file'],
    ['a device as source', file1({ file: '/dev/null' }), 'source-not-file'],
    ['a stream that is too short', file1(announce(5, 'abc')), 'source-changed'],
    ['a stream that is too long', file1(announce(5, 'abc', 'def')), 'source-changed'],
    ['a path listed twice', debSpec([file('/usr/x'), file('/usr/x')]), 'duplicate-path'],
    ['a bad name', debSpec([], { fields: { Package: '/usr/x' } }), 'deb-control'],
    ['a conffile that is not there', debSpec([], { conffiles: ['/usr/x'] }), 'deb-conffile'],
  ])('refuses %s, naming it, and leaves nothing behind', async (_title, spec, code) => {
    await using scratch = await createScratch();
    const error = await refusal(writeDeb({}, scratch.at('out', 'x.deb'), spec, OPTIONS));
    expect(error.code).toBe(code);
    expect(error.message).toContain('/usr/x');
    expect(await readdir(scratch.at('out')).catch(() => [])).toEqual([]);
  });

  it.each([
    ['grows', (path: string) => appendFile(path, 'more')],
    ['shrinks', (path: string) => writeFile(path, 'x')],
    ['is written over in its place', (path: string) => writeFile(path, Buffer.alloc(3 * 1024 * 1024, 'y'))],
  ])('notices a source that %s while it is read', async (_title, change) => {
    await using scratch = await createScratch();
    const source = await scratch.put('source', Buffer.alloc(3 * 1024 * 1024, 'x'));
    await utimes(source, 1000, 1000); // the clock of files ticks every few milliseconds only
    // the second chunk cannot go out before the first is taken: between them other code runs
    let changed: Promise<void> | undefined;
    const throwIfAborted = () => {
      changed ??= change(source);
    };
    const signal = { throwIfAborted } as unknown as AbortSignal;
    const first = file('/a', Buffer.alloc(900 * 1024));
    const spec = debSpec([first, { path: '/b', type: 'file', mode: 0o644, source: { file: source } }]);
    const error = await refusal(writeDeb({ signal }, scratch.at('x.deb'), spec, { ...OPTIONS, compression: 'gzip' }));
    await changed;
    expect(error).toMatchObject({ code: 'source-changed', message: expect.stringContaining('/b'), file: source });
    expect((await readdir(scratch.path)).sort()).toEqual(['source']);
  });

  it('stops when told to, and leaves nothing behind', async () => {
    await using scratch = await createScratch();
    const controller = new AbortController();
    const endless = async function* () {
      for (;;) {
        yield Buffer.alloc(1024 * 1024);
        controller.abort();
      }
    };
    const spec = file1({ size: 1e12, open: endless });
    await expect(writeDeb({ signal: controller.signal }, scratch.at('x.deb'), spec, OPTIONS)).rejects.toThrow(/abort/i);
    expect(await readdir(scratch.path)).toEqual([]);
  });

  it('keeps the old file when the new one fails', async () => {
    await using scratch = await createScratch();
    await scratch.put('x.deb', 'old');
    await refusal(writeDeb({}, scratch.at('x.deb'), file1({ file: '/nonexistent' }), OPTIONS));
    expect(await readFile(scratch.at('x.deb'), 'utf8')).toBe('old');
  });
});

describe('readDeb', () => {
  it('takes what GNU ar and debsig add, and says where the members lie', async () => {
    await using scratch = await createScratch();
    const bytes = rawDeb({
      members: ([version, control, data]) => [
        { ...version!, name: 'debian-binary/' },
        { name: '_extra', data: 'odd' },
        control!,
        { name: '_more', data: '' },
        data!,
        { name: '_gpgorigin', data: 'signature' },
      ],
    });
    const { members, package: found } = await readDeb({}, await scratch.put('x.deb', bytes));
    expect(members.map(({ name }) => name)).toEqual([
      'debian-binary',
      '_extra',
      'control.tar',
      '_more',
      'data.tar',
      '_gpgorigin',
    ]);
    for (const { name, offset, size } of members)
      if (name === '_gpgorigin') expect(bytes.toString('utf8', offset, offset + size)).toBe('signature');
    expect(formatParagraph(found.control)).toBe(CONTROL_TEXT);
  });

  it('reads conffiles with flags', async () => {
    await using scratch = await createScratch();
    const control = [
      { name: './control', data: CONTROL_TEXT },
      { name: './conffiles', data: '/etc/a\nremove-on-upgrade /etc/b c\n' },
    ];
    const { conffiles } = await readDeb({}, await scratch.put('x.deb', rawDeb({ control })));
    expect(conffiles).toEqual(['/etc/a', '/etc/b c']);
  });

  it('digests files larger than a chunk the same, with the control member across its edge', async () => {
    await using scratch = await createScratch();
    for (const before of [1024 * 1024 - 10_000, 1024 * 1024 - 100, 3 * 1024 * 1024]) {
      const bytes = rawDeb({
        members: ([version, control, data]) => [
          version!,
          { name: '_pad', data: Buffer.alloc(before) },
          control!,
          data!,
        ],
      });
      const info = await readDeb({}, await scratch.put('x.deb', bytes));
      expect(info.package.sha512).toBe(createHash('sha512').update(bytes).digest('hex'));
      expect(info.package.name).toBe('sample');
    }
  });

  it.each<[string, () => Buffer, RegExp]>([
    ['an empty file', () => Buffer.alloc(0), /too short/],
    ['another kind of file', () => Buffer.from('PK\x03\x04 some zip file'), /not a Debian package/],
    ['a package of 1994', () => Buffer.from('0.939000\n'), /format/],
    ['an ar archive of something', () => rawAr([{ name: 'x.o', data: 'x' }]), /debian-binary/],
    ['an empty ar archive', () => rawAr([]), /debian-binary/],
    [
      'format 3',
      () => rawDeb({ members: ([, ...rest]) => [{ name: 'debian-binary', data: '3.0\n' }, ...rest] }),
      /3\.0/,
    ],
    [
      'no format',
      () => rawDeb({ members: ([, ...rest]) => [{ name: 'debian-binary', data: 'x' }, ...rest] }),
      /debian-binary/,
    ],
    [
      'no control.tar',
      () => rawDeb({ members: ([a, , c]) => [a!, c!] }),
      /data\.tar: stands where control\.tar should/,
    ],
    ['no data.tar', () => rawDeb({ members: ([a, b]) => [a!, b!] }), /data\.tar: missing/],
    ['the wrong order', () => rawDeb({ members: ([a, b, c]) => [a!, c!, b!] }), /stands where control\.tar should/],
    [
      'another member between',
      () => rawDeb({ members: ([a, b, c]) => [a!, { name: 'x' }, b!, c!] }),
      /x: stands where control\.tar should/,
    ],
    [
      'two control.tar',
      () => rawDeb({ members: ([a, b, c]) => [a!, b!, b!, c!] }),
      /control\.tar: there is more than one/,
    ],
    [
      'two control.tar, one behind',
      () => rawDeb({ members: ([a, b, c]) => [a!, b!, c!, { ...b!, name: 'control.tar.gz' }] }),
      /more than one/,
    ],
    [
      'two data.tar',
      () => rawDeb({ members: ([a, b, c]) => [a!, b!, c!, { ...c!, name: 'data.tar.xz' }] }),
      /more than one/,
    ],
    [
      'two debian-binary',
      () => rawDeb({ members: ([a, b, c]) => [a!, a!, b!, c!] }),
      /debian-binary: there is more than one/,
    ],
    [
      'an unknown compression',
      () => rawDeb({ members: ([a, b, c]) => [a!, b!, { ...c!, name: 'data.tar.Z' }] }),
      /data\.tar\.Z/,
    ],
    [
      'bzip2 where only data may have it',
      () => rawDeb({ members: ([a, b, c]) => [a!, { ...b!, name: 'control.tar.bz2' }, c!] }),
      /control\.tar\.bz2/,
    ],
    ['junk behind', () => Buffer.concat([rawDeb(), Buffer.from('junk '.repeat(20))]), /after data\.tar/],
    ['a little junk behind', () => Buffer.concat([rawDeb(), Buffer.from('\n')]), /after data\.tar/],
    [
      'a size larger than the file',
      () => rawDeb({ dataMember: { name: 'data.tar', data: 'x', size: 100_000 } }),
      /data\.tar: cut short/,
    ],
    [
      'a size larger than any file',
      () => rawDeb({ controlMember: { name: 'control.tar', data: 'x', size: 9_999_999_999 } }),
      /control\.tar: cut short/,
    ],
    [
      'a size smaller than the content',
      () => rawDeb({ dataMember: { name: 'data.tar', data: rawTar([]), size: 100 } }),
      /after data\.tar/,
    ],
    [
      'a size that is no number',
      () => rawDeb({ dataMember: { name: 'data.tar', data: 'x', size: '1e3' } }),
      /'data\.tar'/,
    ],
    [
      'a member without its padding',
      () => rawDeb({ dataMember: { name: 'data.tar', data: 'odd', padded: false } }),
      /data\.tar/,
    ],
    [
      'a thousand members',
      () => rawDeb({ members: (usual) => [...usual, ...Array.from({ length: 1000 }, () => ({ name: '_x' }))] }),
      /members/,
    ],
  ])('refuses %s, naming file and member', async (_title, bytes, reason) => {
    await using scratch = await createScratch();
    const path = await scratch.put('bad.deb', bytes());
    const error = await refusal(readDeb({}, path));
    expect(error).toMatchObject({ code: expect.stringMatching(/^deb-/), file: path });
    expect(error.message).toMatch(reason);
  });

  const good = { name: './control', data: CONTROL_TEXT };
  it.each<[string, RawTarEntry[], RegExp]>([
    ['no control file', [{ name: './md5sums', data: '' }], /control: missing/],
    ['an empty control file', [{ ...good, data: '' }], /control: /],
    ['a control file that is none', [{ ...good, data: 'hello\n' }], /control: /],
    ['a control file of two paragraphs', [{ ...good, data: `${CONTROL_TEXT}\n${CONTROL_TEXT}` }], /control: /],
    [
      'a control file that is not UTF-8',
      [{ ...good, data: Buffer.concat([Buffer.from(CONTROL_TEXT), Buffer.from('X: \xe9\n', 'latin1')]) }],
      /UTF-8/,
    ],
    [
      'a control file too large',
      [{ ...good, data: `${CONTROL_TEXT}X: ${'x'.repeat(9 << 20)}\n` }],
      /control: larger than/,
    ],
    ['a field given twice', [{ ...good, data: `${CONTROL_TEXT}Package: other\n` }], /control: .*Package/],
    ['no Version', [{ ...good, data: 'Package: x\nArchitecture: all\n' }], /'Version'/],
    ['a name with a slash', [{ ...good, data: CONTROL_TEXT.replace('sample', '../../x') }], /package name/],
    ['a version with a blank', [{ ...good, data: CONTROL_TEXT.replace('1.0-1', '1.0 -1') }], /version/],
    ['an architecture that is none', [{ ...good, data: CONTROL_TEXT.replace('all', '../x') }], /architecture/],
    ['two control files', [good, good], /twice/],
    ['two control files of different spelling', [good, { ...good, name: 'control' }], /twice/],
    ['a control file by symlink', [{ name: './control', type: 'symlink', link: '/etc/passwd' }], /symlink/],
    ['a control file in a folder', [good, { name: './x/y', data: '' }], /no name for a control file/],
    ['a control file outside', [good, { name: '../y', data: '' }], /no name for a control file/],
    ['an absolute control file', [good, { name: '/y', data: '' }], /no name for a control file/],
    ['a name with an escape', [good, { name: './\x1b[2J', data: '' }], /no name for a control file/],
    ['a device', [good, { name: './x', type: 'char-device' }], /char-device/],
    ['a folder', [good, { name: './x', type: 'dir' }], /dir/],
    ['a size that lies', [{ ...good, size: 100_000 }], /cut short|broken|checksum/],
    ['a pax header', [{ name: './x', data: '9 path=y\n', tamper: (block) => void block.write('x', 156) }, good], /pax/],
  ])('refuses a control.tar with %s, naming file and member', async (_title, control, reason) => {
    await using scratch = await createScratch();
    const path = await scratch.put('bad.deb', rawDeb({ control }));
    const error = await refusal(readDeb({}, path));
    expect(error.file).toBe(path);
    expect(error.message).toMatch(/^control\.tar: /);
    expect(error.message).toMatch(reason);
  });

  it('refuses what is no readable file', async () => {
    await using scratch = await createScratch();
    await symlink('loop', scratch.at('loop'));
    for (const path of [scratch.at('none'), scratch.path, '/dev/zero', scratch.at('loop')]) {
      expect(await refusal(readDeb({}, path))).toMatchObject({ code: 'deb-unreadable', file: path });
    }
  });

  it('cut at any byte is an error that names the file, for every door', { timeout: 60_000 }, async () => {
    await using scratch = await createScratch();
    const { path } = await writeDeb({}, scratch.at('good.deb'), debSpec([file('/usr/x', 'odd')]), OPTIONS);
    const bytes = await readFile(path);
    for (let length = 0; length < bytes.length; length += 1) {
      const cut = await scratch.put('cut.deb', bytes.subarray(0, length));
      expect(await refusal(readDeb({}, cut))).toMatchObject({ code: expect.stringMatching(/^deb-/), file: cut });
      expect(await refusal(pathsOf(cut))).toMatchObject({ file: cut });
      if (length % 50 === 0) expect(await refusal(extractDeb({}, cut, scratch.at('out')))).toMatchObject({ file: cut });
    }
  });

  it('with any bytes changed it is read or refused, never anything else', { timeout: 60_000 }, async () => {
    await using scratch = await createScratch();
    const bytes = rawDeb({
      data: [
        { name: './a', type: 'dir' },
        { name: './a/b', data: 'x' },
        { name: './l', type: 'symlink', link: 'a' },
      ],
    });
    const change = fc.record({ at: fc.nat(bytes.length - 1), to: fc.nat(255) });
    const early = fc.record({ at: fc.nat(2000), to: fc.integer({ min: 0x20, max: 0x7e }) });
    let read = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(fc.oneof(change, early), { minLength: 1, maxLength: 5 }), async (changes) => {
        const bad = Buffer.from(bytes);
        for (const { at, to } of changes) bad[at] = to;
        const path = await scratch.put('bad.deb', bad);
        for (const door of [
          () => readDeb({}, path),
          () => pathsOf(path),
          () => extractDeb({}, path, scratch.at('out')),
        ]) {
          await door().then(
            () => (read += 1),
            (error: unknown) => expect(error).toBeInstanceOf(UserError),
          );
        }
        await rm(scratch.at('out'), { recursive: true, force: true });
      }),
      { numRuns: 400 },
    );
    expect(read).toBeGreaterThan(0);
  });
});

describe('readDebs', () => {
  it('answers for each file in its order, the bad ones with their error', async () => {
    await using scratch = await createScratch();
    const paths: string[] = [];
    for (let index = 0; index < 600; index += 1) {
      const control = [{ name: './control', data: CONTROL_TEXT.replace('sample', `sample${index}`) }];
      const bytes = index % 100 === 7 ? Buffer.from('bad') : rawDeb({ control });
      paths.push(await scratch.put(`${index}.deb`, bytes));
    }
    paths.splice(300, 0, scratch.at('missing.deb'));
    const seen: string[] = [];
    for await (const result of readDebs({}, paths)) {
      expect(result.path).toBe(paths[seen.length]);
      seen.push('info' in result ? result.info.package.name : (result.error as UserError).code);
    }
    expect(seen).toEqual(
      paths.map((path) => {
        const index = Number(/(\d+)\.deb$/.exec(path)?.[1] ?? Number.NaN);
        if (Number.isNaN(index)) return 'deb-unreadable';
        return index % 100 === 7 ? 'deb-broken' : `sample${index}`;
      }),
    );
  });
});

describe('extractDeb', () => {
  const unpack = async (raw: RawDeb, prepare?: (target: string) => Promise<unknown>) => {
    const scratch = await createScratch();
    const target = scratch.at('target');
    await mkdir(target);
    await writeFile(scratch.at('outside'), 'untouched', { mode: 0o600 });
    await prepare?.(target);
    const path = await scratch.put('x.deb', rawDeb(raw));
    const work = extractDeb({}, path, target);
    return { scratch, target, path, work };
  };

  it.each<[string, RawTarEntry[], ((target: string) => Promise<unknown>)?]>([
    ['a name that goes up', [{ name: './../outside', data: 'evil' }]],
    ['a name that goes up in its middle', [{ name: './a/../../outside', data: 'evil' }]],
    ['an absolute name', [{ name: '/outside', data: 'evil' }]],
    ['an empty name', [{ name: '', data: 'evil' }]],
    [
      'writing through a link to a folder',
      [
        { name: './l', type: 'symlink', link: '..' },
        { name: './l/outside', data: 'evil' },
      ],
    ],
    [
      'writing through an absolute link',
      [
        { name: './l', type: 'symlink', link: '/tmp' },
        { name: './l/evil', data: 'evil' },
      ],
    ],
    [
      'writing through a link below a folder',
      [
        { name: './d', type: 'dir' },
        { name: './d/l', type: 'symlink', link: '../..' },
        { name: './d/l/outside', data: 'evil' },
      ],
    ],
    [
      'a folder in the place of a link',
      [
        { name: './l', type: 'symlink', link: '..' },
        { name: './l', type: 'dir', mode: 0o777 },
      ],
    ],
    [
      'a link in the place of a folder',
      [
        { name: './d', type: 'dir' },
        { name: './d', type: 'symlink', link: '..' },
        { name: './d/outside', data: 'evil' },
      ],
    ],
    ['a hard link to outside', [{ name: './h', type: 'hardlink', link: '../outside' }]],
    ['a hard link to an absolute name', [{ name: './h', type: 'hardlink', link: '/etc/passwd' }]],
    [
      'a hard link through a link',
      [
        { name: './l', type: 'symlink', link: '..' },
        { name: './h', type: 'hardlink', link: './l/outside' },
      ],
    ],
    [
      'a hard link to a link',
      [
        { name: './l', type: 'symlink', link: '../outside' },
        { name: './h', type: 'hardlink', link: './l' },
      ],
    ],
    [
      'a hard link to itself',
      [
        { name: './h', data: 'x' },
        { name: './h', type: 'hardlink', link: './h' },
      ],
    ],
    ['a hard link to nothing', [{ name: './h', type: 'hardlink', link: './none' }]],
    ['a link that was there before', [{ name: './l/outside', data: 'evil' }], (target) => symlink('..', `${target}/l`)],
    ['a character device', [{ name: './null', type: 'char-device' }]],
    ['a block device', [{ name: './sda', type: 'block-device' }]],
    ['a fifo', [{ name: './fifo', type: 'fifo' }]],
    ['a file as the root', [{ name: './', data: 'x', tamper: (block) => void block.write('.\0', 0) }]],
    ['a symlink as the root', [{ name: '.', type: 'symlink', link: '/etc' }]],
    ['a link to nowhere', [{ name: './l', type: 'symlink', link: '' }]],
    ['a name that the system does not take', [{ name: `./${'x'.repeat(300)}`, data: 'x' }]],
    ['a path that the system does not take', [{ name: `./${'x/'.repeat(3000)}x`, data: 'x' }]],
  ])('refuses %s and touches nothing outside', async (_title, data, prepare) => {
    const { scratch, path, work } = await unpack({ data }, prepare);
    await using _ = scratch;
    const error = await refusal(work);
    expect(error).toMatchObject({ code: 'deb-unsafe', file: path, message: expect.stringMatching(/^data\.tar: /) });
    expect((await readdir(scratch.path)).sort()).toEqual(['outside', 'target', 'x.deb']);
    expect(await readFile(scratch.at('outside'), 'utf8')).toBe('untouched');
    expect((await stat(scratch.at('outside'))).mode & 0o777).toBe(0o600);
    expect((await stat(scratch.at('outside'))).nlink).toBe(1);
  });

  it('replaces what is in the way instead of writing through it', async () => {
    const { scratch, target, work } = await unpack(
      {
        data: [
          { name: './l', type: 'symlink', link: '../outside' },
          { name: './l', data: 'new' },
          { name: './h', data: 'own', mode: 0o666 },
        ],
      },
      async (target) => symlink('../outside', `${target}/h`),
    );
    await using _ = scratch;
    await work;
    expect(await readFile(`${target}/l`, 'utf8')).toBe('new');
    expect(await readFile(`${target}/h`, 'utf8')).toBe('own');
    expect(await readFile(scratch.at('outside'), 'utf8')).toBe('untouched');
  });

  it('sets modes and times, also of folders that may not be written and of times before 1970', async () => {
    const { scratch, target, work } = await unpack({
      data: [
        { name: './', type: 'dir', mtime: 1000 },
        { name: './d', type: 'dir', mode: 0o555, mtime: -5 },
        { name: './d/f', data: 'x', mode: 0o4711, mtime: 2000 },
      ],
    });
    await using _ = scratch;
    await work;
    const facts = await Promise.all(['', '/d', '/d/f'].map((name) => stat(target + name)));
    expect(facts.map(({ mode, mtimeMs }) => [(mode & 0o7777).toString(8), mtimeMs / 1000])).toEqual([
      ['755', 1000],
      ['555', -5],
      ['4711', 2000],
    ]);
    await chmod(`${target}/d`, 0o755);
  });

  it('finds a content that is shorter than announced', async () => {
    const { scratch, work } = await unpack({ data: [{ name: './x', data: 'x', size: 1_000_000 }] });
    await using _ = scratch;
    expect(await refusal(work)).toMatchObject({ code: 'tar-truncated', message: expect.stringContaining('data.tar') });
  });
});

describe('listDeb', () => {
  it('gives each object as it would be installed', async () => {
    await using scratch = await createScratch();
    const data: RawTarEntry[] = [
      { name: './', type: 'dir' },
      { name: 'no-dot', data: 'x', uid: 5 },
      { name: './/odd/./name/', type: 'dir', mode: 0o1777 },
      { name: './h', type: 'hardlink', link: './no-dot' },
      { name: './l', type: 'symlink', link: '../anywhere' },
      { name: './c', type: 'char-device' },
    ];
    const path = await scratch.put('x.deb', rawDeb({ data }));
    const seen = [];
    for await (const { path: one, type, mode, uid, size, link } of listDeb({}, path))
      seen.push([one, type, mode, uid, size, link]);
    expect(seen).toEqual([
      ['/', 'dir', 0o755, 0, 0, undefined],
      ['/no-dot', 'file', 0o644, 5, 1, undefined],
      ['/odd/name', 'dir', 0o1777, 0, 0, undefined],
      ['/h', 'hardlink', 0o644, 0, 0, '/no-dot'],
      ['/l', 'symlink', 0o644, 0, 0, '../anywhere'],
      ['/c', 'char-device', 0o644, 0, 0, undefined],
    ]);
  });

  it('may be left early', async () => {
    await using scratch = await createScratch();
    const { path } = await writeDeb({}, scratch.at('x.deb'), debSpec([file('/a'), file('/b')]), {
      ...OPTIONS,
      compression: 'gzip',
    });
    for await (const one of listDeb({}, path)) {
      expect(one.path).toBe('/');
      break;
    }
  });

  it('refuses names that lead out', async () => {
    await using scratch = await createScratch();
    const path = await scratch.put('x.deb', rawDeb({ data: [{ name: './a/../../b', data: '' }] }));
    expect(await refusal(pathsOf(path))).toMatchObject({ code: 'deb-unsafe', file: path });
  });
});
