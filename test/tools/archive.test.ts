/** Our .debs before dpkg, dpkg-deb and tar; dpkg-deb's before us. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import type { RunContext } from '../../src/core/context.ts';
import { ToolError, UserError } from '../../src/core/errors.ts';
import { run } from '../../src/core/run.ts';
import { type DebFile, extractDeb, listDeb, readDeb, readDebs, writeDeb } from '../../src/deb/archive.ts';
import { formatParagraph } from '../../src/deb/control.ts';
import { decompress } from '../../src/deb/decompression.ts';
import { formatTarHeader, tarEnd, tarPadding } from '../../src/deb/tar.ts';
import { createScratch, debSpec, file, rawAr, rawTar, type Scratch, tarHeader } from '../support/deb-builder.ts';
import { AWKWARD, describeTree, makeTree } from '../support/deb-trees.ts';

const EPOCH = 1_700_000_000;
const KINDS = ['xz', 'zstd', 'gzip', 'none'] as const;
const MINUTE = 60_000;

/** Text with the statistics of text, the same each time. */
function text(size: number): Buffer {
  const words = Array.from({ length: 500 }, (_, index) =>
    createHash('md5')
      .update(String(index))
      .digest('hex')
      .slice(0, 3 + (index % 9)),
  );
  const parts: string[] = [];
  let state = 1;
  for (let length = 0; length < size; ) {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    const word = words[state % 499]!;
    parts.push(word);
    length += word.length + 1;
  }
  return Buffer.from(parts.join(' ').slice(0, size));
}

async function list(path: string): Promise<DebFile[]> {
  const files: DebFile[] = [];
  for await (const one of listDeb({}, path)) files.push(one);
  return files;
}

/** dpkg in a root of its own. */
async function dpkgRoot(scratch: Scratch): Promise<(...args: string[]) => Promise<string>> {
  const root = scratch.at('root');
  for (const folder of ['info', 'updates', 'triggers'])
    await mkdir(`${root}/var/lib/dpkg/${folder}`, { recursive: true });
  await writeFile(`${root}/var/lib/dpkg/status`, '');
  return async (...args) => {
    const { stdout, stderr } = await run({}, 'dpkg', [
      `--root=${root}`,
      '--force-bad-path',
      `--log=${scratch.at('log')}`,
      ...args,
    ]);
    return stdout + stderr;
  };
}

/** The bytes of data.tar as tar has them. */
async function fsysTar(scratch: Scratch, path: string): Promise<Buffer> {
  await run({}, 'sh', ['-c', 'dpkg-deb --fsys-tarfile "$1" >"$2"', 'sh', path, scratch.at('fsys.tar')]);
  return readFile(scratch.at('fsys.tar'));
}

describe('what we write', () => {
  it('holds the very data.tar that dpkg-deb makes of the same files', { timeout: MINUTE }, async () => {
    await using scratch = await createScratch();
    await makeTree(scratch.at('tree'), AWKWARD, EPOCH + 5);
    await mkdir(scratch.at('tree/DEBIAN'), { mode: 0o755 });
    const spec = debSpec(AWKWARD);
    await scratch.put('tree/DEBIAN/control', formatParagraph(spec.control));
    await scratch.put('tree/DEBIAN/conffiles', '/etc/awkward.conf\n');
    const context = { env: { ...process.env, SOURCE_DATE_EPOCH: String(EPOCH) } };
    await run(context, 'dpkg-deb', [
      '--root-owner-group',
      '-Znone',
      '--build',
      scratch.at('tree'),
      scratch.at('theirs.deb'),
    ]);
    const theirs = await fsysTar(scratch, scratch.at('theirs.deb'));
    for (const compression of KINDS) {
      const { path } = await writeDeb({}, scratch.at('ours.deb'), spec, { sourceDateEpoch: EPOCH, compression });
      const ours = await fsysTar(scratch, path);
      expect(ours.equals(theirs)).toBe(true);
      expect((await run({}, 'dpkg-deb', ['--contents', path])).stdout).toBe(
        (await run({}, 'dpkg-deb', ['--contents', scratch.at('theirs.deb')])).stdout,
      );
    }
  });

  it('has the control files that dpkg-deb finds in it', { timeout: MINUTE }, async () => {
    await using scratch = await createScratch();
    const spec = debSpec([file('/x')], {
      scripts: { preinst: '#!/bin/sh\n', postinst: '#!/bin/sh\nexit 0\n' },
      triggers: 'interest-noawait /x\n',
      extraControl: { templates: { data: 'Template: a/b\n', mode: 0o644 } },
      fields: { Depends: 'libc6 (>= 2.36)', 'Multi-Arch': 'foreign' },
    });
    for (const compression of KINDS) {
      const written = await writeDeb({}, scratch.at('x.deb'), spec, { sourceDateEpoch: EPOCH, compression });
      await run({}, 'dpkg-deb', ['--control', written.path, scratch.at(compression)]);
      expect((await readdir(scratch.at(compression))).sort()).toEqual([
        'control',
        'md5sums',
        'postinst',
        'preinst',
        'templates',
        'triggers',
      ]);
      expect((await stat(scratch.at(compression, 'postinst'))).mode & 0o777).toBe(0o755);
      expect(await readFile(scratch.at(compression, 'control'), 'utf8')).toBe(formatParagraph(written.control));
      expect((await run({}, 'dpkg-deb', ['--field', written.path, 'Depends', 'Installed-Size'])).stdout).toBe(
        'Depends: libc6 (>= 2.36)\nInstalled-Size: 2\n',
      );
    }
  });

  it('is installed, verified and removed by dpkg, awkward names and all', { timeout: 2 * MINUTE }, async () => {
    await using scratch = await createScratch();
    await makeTree(scratch.at('expected'), AWKWARD, EPOCH);
    const expected = await describeTree(scratch.at('expected'));
    for (const compression of KINDS) {
      await using own = await createScratch();
      const dpkg = await dpkgRoot(own);
      const { path } = await writeDeb({}, scratch.at('x.deb'), debSpec(AWKWARD), {
        sourceDateEpoch: EPOCH,
        compression,
      });
      await dpkg('--install', path);
      expect(await dpkg('--verify', 'sample')).toBe('');
      const found = (await describeTree(own.at('root'))).filter((line) => !/"var|"\.\//.test(line));
      // dpkg sets no times of folders, and shares those at the top
      const comparable = (lines: readonly string[]) =>
        lines.filter((line) => !/ "\."/.test(line)).map((line) => line.replace(/^(d \S+ \S+) \d+/, '$1'));
      expect(comparable(found)).toEqual(comparable(expected));
      await writeFile(own.at('root/a-first'), 'changed');
      expect(await dpkg('--verify', 'sample')).toBe('??5??????   /a-first\n');
      await dpkg('--purge', 'sample');
      expect((await readdir(own.at('root'))).sort()).toEqual(['var']);
    }
  });

  it('keeps what a user changed in a conffile', { timeout: MINUTE }, async () => {
    await using scratch = await createScratch();
    const dpkg = await dpkgRoot(scratch);
    const version = (number: string, content: string) =>
      writeDeb(
        {},
        scratch.at(`${number}.deb`),
        debSpec([file('/etc/x', content, { conffile: true })], { fields: { Version: number } }),
        {
          sourceDateEpoch: EPOCH,
        },
      );
    await dpkg('--install', (await version('1', 'one')).path);
    await writeFile(scratch.at('root/etc/x'), 'mine');
    await dpkg('--force-confold', '--install', (await version('2', 'two')).path);
    expect(await readFile(scratch.at('root/etc/x'), 'utf8')).toBe('mine');
    expect(await readFile(scratch.at('root/etc/x.dpkg-dist'), 'utf8')).toBe('two');
  });

  it('is the same for any number of threads and whatever XZ_OPT says, over several blocks', {
    timeout: 2 * MINUTE,
  }, async () => {
    await using scratch = await createScratch();
    const spec = debSpec([file('/big', text(20_000_000))]);
    const settings: { context: RunContext; threads?: number }[] = [
      { context: {}, threads: 1 },
      { context: {}, threads: 3 },
      {
        context: { env: { ...process.env, XZ_OPT: '-9', XZ_DEFAULTS: '-T1', ZSTD_CLEVEL: '19', ZSTD_NBTHREADS: '1' } },
      },
    ];
    for (const [compression, level] of [
      ['xz', 1],
      ['zstd', 3],
    ] as const) {
      const digests = new Set<string>();
      for (const { context, ...threads } of settings) {
        const options = { sourceDateEpoch: EPOCH, compression, level, ...threads };
        const written = await writeDeb(context, scratch.at('x.deb'), spec, options);
        digests.add(written.sha256);
      }
      expect(digests.size).toBe(1);
      expect((await list(scratch.at('x.deb'))).map(({ path, size }) => [path, size])).toEqual([
        ['/', 0],
        ['/big', 20_000_000],
      ]);
      await extractDeb({}, scratch.at('x.deb'), scratch.at(compression));
      expect((await readFile(scratch.at(compression, 'big'))).equals(text(20_000_000))).toBe(true);
    }
  });

  it('says which program is missing, and leaves nothing behind', { timeout: MINUTE }, async () => {
    await using scratch = await createScratch();
    const context = { env: { PATH: scratch.path } };
    const spec = debSpec([file('/big', Buffer.alloc(5_000_000))]);
    for (const [compression, hint] of [
      ['xz', 'xz-utils'],
      ['zstd', 'zstd'],
    ] as const) {
      const work = writeDeb(context, scratch.at('x.deb'), spec, { sourceDateEpoch: EPOCH, compression });
      await expect(work).rejects.toMatchObject({ code: 'tool-missing', hint: expect.stringContaining(hint) });
      await expect(work).rejects.toBeInstanceOf(ToolError);
      expect(await readdir(scratch.path)).toEqual([]);
    }
  });

  it('leaves nothing on a full disk, whoever fills it', { timeout: MINUTE }, async () => {
    await using scratch = await createScratch();
    await mkdir(scratch.at('disk'));
    await run({}, 'mount', ['-t', 'tmpfs', '-o', 'size=1m', 'buildkit-test', scratch.at('disk')]);
    try {
      await writeFile(scratch.at('disk/x.deb'), 'old');
      const random = async function* () {
        for (let block = 0; block < 8; block += 1) {
          yield Buffer.concat(
            Array.from({ length: 16_384 }, (_, index) => createHash('sha512').update(`${block} ${index}`).digest()),
          );
        }
      };
      const spec = debSpec([
        { path: '/x', type: 'file', mode: 0o644, source: { size: 8 * 1024 * 1024, open: random } },
      ]);
      for (const compression of KINDS) {
        const work = writeDeb({}, scratch.at('disk/x.deb'), spec, { sourceDateEpoch: EPOCH, compression });
        await expect(work).rejects.toMatchObject({
          code: 'cannot-write',
          message: expect.stringContaining('no room left'),
        });
        await expect(work).rejects.toBeInstanceOf(UserError);
        expect(await readdir(scratch.at('disk'))).toEqual(['x.deb']);
        expect(await readFile(scratch.at('disk/x.deb'), 'utf8')).toBe('old');
      }
    } finally {
      await run({}, 'umount', [scratch.at('disk')]);
    }
  });
});

describe('numbers that octal cannot hold', () => {
  it('are read by tar as we write them, 9 GB and times before 1970 included', { timeout: MINUTE }, async () => {
    await using scratch = await createScratch();
    const entries = [
      tarHeader({ name: './big', size: 9_000_000_001, mtime: 12_345_678_901 }),
      tarHeader({ name: './old', mtime: -3_000_000_000 }),
      tarHeader({ name: './far', mtime: -1, uid: 4_000_000_000 }),
    ];
    const archive = await open(scratch.at('x.tar'), 'w');
    let offset = 0;
    for (const header of entries) {
      await archive.write(formatTarHeader(header), 0, null, offset);
      offset += 512 + header.size + tarPadding(header.size);
    }
    await archive.write(tarEnd(offset), 0, null, offset); // the content is a hole
    await archive.close();
    const { stdout } = await run({ env: { ...process.env, TZ: 'UTC' } }, 'tar', [
      '--list',
      '--verbose',
      '--numeric-owner',
      '--full-time',
      '--file',
      scratch.at('x.tar'),
    ]);
    expect(stdout.split('\n').map((line) => line.split(/\s+/).slice(1).join(' '))).toEqual([
      '0/0 9000000001 2361-03-21 19:15:01 ./big',
      '0/0 0 1874-12-07 18:40:00 ./old',
      '4000000000/0 0 1969-12-31 23:59:59 ./far',
      '',
    ]);
  });

  it('are the same bytes as GNU tar writes', { timeout: MINUTE }, async () => {
    await using scratch = await createScratch();
    for (const mtime of [-3_000_000_000, -1, 0, 8_589_934_591, 8_589_934_592]) {
      await scratch.put('x', '');
      await run({}, 'tar', [
        '--create',
        '--format=gnu',
        '--owner=u:4000000000',
        '--group=g:3',
        '--mode=4711',
        `--mtime=@${mtime}`,
        '-C',
        scratch.path,
        '--file',
        scratch.at('x.tar'),
        './x',
      ]);
      const header = {
        ...tarHeader({ name: './x', mtime, uid: 4_000_000_000, gid: 3, mode: 0o4711 }),
        user: 'u',
        group: 'g',
      };
      expect((await readFile(scratch.at('x.tar'))).subarray(0, 512).equals(formatTarHeader(header))).toBe(true);
    }
  });
});

describe("dpkg-deb's packages", () => {
  it.each(KINDS)('in %s are read, listed and unpacked as dpkg-deb does', { timeout: MINUTE }, async (compression) => {
    await using scratch = await createScratch();
    await makeTree(scratch.at('tree'), AWKWARD, EPOCH - 99);
    await mkdir(scratch.at('tree/DEBIAN'), { mode: 0o755 });
    const { control } = debSpec([], { fields: { Version: '1:2.0~rc1-1' } });
    await scratch.put('tree/DEBIAN/control', formatParagraph(control));
    await run({}, 'dpkg-deb', [
      '--root-owner-group',
      `-Z${compression}`,
      '--build',
      scratch.at('tree'),
      scratch.at('x.deb'),
    ]);

    const info = await readDeb({}, scratch.at('x.deb'));
    expect(info.package.version).toBe('1:2.0~rc1-1');
    expect(formatParagraph(info.package.control)).toBe(formatParagraph(control));
    const { stdout } = await run({}, 'sha512sum', [scratch.at('x.deb')]);
    expect(info.package.sha512).toBe(stdout.split(' ')[0]);

    const names = (
      await run({}, 'sh', [
        '-c',
        'dpkg-deb --fsys-tarfile "$1" | tar --list --quoting-style=literal',
        'sh',
        scratch.at('x.deb'),
      ])
    ).stdout;
    expect(
      (await list(scratch.at('x.deb'))).map(
        ({ path, type }) => `.${path === '/' ? '' : path}${type === 'dir' ? '/' : ''}`,
      ),
    ).toEqual(names.split('\n').slice(0, -1));

    await run({}, 'dpkg-deb', ['--extract', scratch.at('x.deb'), scratch.at('theirs')]);
    await extractDeb({}, scratch.at('x.deb'), scratch.at('ours'));
    // tar sets the time of a folder before it makes the links in it that lead up or are absolute; we set it after
    const timeless = (lines: readonly string[]) =>
      lines.map((line) => line.replace(/^(d \S+ \S+) \d+ (?="usr\/lib" )/, '$1 '));
    const ours = await describeTree(scratch.at('ours'));
    expect(timeless(ours)).toEqual(timeless(await describeTree(scratch.at('theirs'))));
    expect(ours).toContain(`d 755 0:0 ${EPOCH - 99} "usr/lib" `);
    expect(ours).toHaveLength((await list(scratch.at('x.deb'))).length);
  });

  it.each([
    ['bz2', 'bzip2 --stdout'],
    ['lzma', 'xz --format=lzma --stdout'],
    ['xz', 'xz --block-size=4096 --stdout'],
  ])(
    'with data.tar.%s, as old or odd tools made them, are unpacked alike',
    { timeout: MINUTE },
    async (suffix, command) => {
      await using scratch = await createScratch();
      const tar = rawTar([
        { name: './', type: 'dir' },
        { name: './big', data: text(3_000_000) },
      ]);
      await scratch.put('tar', tar);
      const output = scratch.at('packed');
      await run({}, 'sh', ['-c', `${command} <tar >"$1"`, 'sh', output], { cwd: scratch.path });
      const members = [
        { name: 'debian-binary', data: '2.0\n' },
        { name: 'control.tar', data: rawTar([{ name: './control', data: formatParagraph(debSpec([]).control) }]) },
        { name: `data.tar.${suffix}`, data: await readFile(output) },
        { name: '_gpgorigin', data: 'signature' },
      ];
      const path = await scratch.put('x.deb', rawAr(members));
      expect((await readDeb({}, path)).members.map(({ name }) => name)).toEqual(members.map(({ name }) => name));
      await run({}, 'dpkg-deb', ['--extract', path, scratch.at('theirs')]);
      await extractDeb({}, path, scratch.at('ours'));
      expect(await describeTree(scratch.at('ours'))).toEqual(await describeTree(scratch.at('theirs')));
    },
  );

  it.each([
    ['xz', 'xz'],
    ['zst', 'zstd'],
  ] as const)(
    'of several %s streams dpkg reads the first, and so do we; apt has its own mind',
    { timeout: MINUTE },
    async (suffix, program) => {
      await using scratch = await createScratch();
      const tar = rawTar([{ name: './big', data: text(300_000) }]);
      await scratch.put('a', tar.subarray(0, 150_000));
      await scratch.put('b', tar.subarray(150_000));
      const script = 'for part in a b; do "$1" --stdout --quiet "$part"; done >packed';
      await run({}, 'sh', ['-c', script, 'sh', program], { cwd: scratch.path });
      const members = [
        { name: 'debian-binary', data: '2.0\n' },
        { name: 'control.tar', data: rawTar([{ name: './control', data: formatParagraph(debSpec([]).control) }]) },
        { name: `data.tar.${suffix}`, data: await readFile(scratch.at('packed')) },
      ];
      const path = await scratch.put('x.deb', rawAr(members));
      await expect(run({}, 'dpkg-deb', ['--extract', path, scratch.at('theirs')])).rejects.toBeInstanceOf(ToolError);
      const parts: Uint8Array[] = [];
      const source = createReadStream(scratch.at('packed'));
      const unpacked = decompress({}, program, source, { member: 'x' }, { reader: 'apt' });
      for await (const chunk of unpacked) parts.push(Buffer.from(chunk));
      expect(Buffer.concat(parts).equals(program === 'zstd' ? tar : tar.subarray(0, 150_000))).toBe(true);
      const work = extractDeb({}, path, scratch.at('ours'));
      await expect(work).rejects.toMatchObject({ code: suffix === 'xz' ? 'tar-truncated' : 'deb-broken' });
    },
  );

  it('in numbers, xz and all, are read as one by one, by few processes', { timeout: 2 * MINUTE }, async () => {
    await using scratch = await createScratch();
    const started: string[] = [];
    const log = { detail: (line: string) => void started.push(line) } as unknown as NonNullable<RunContext['log']>;
    const paths: string[] = [];
    await mkdir(scratch.at('tree/DEBIAN'), { recursive: true, mode: 0o755 });
    for (let index = 0; index < 40; index += 1) {
      await scratch.put(
        'tree/DEBIAN/control',
        formatParagraph(debSpec([], { fields: { Package: `sample${index}` } }).control),
      );
      const kind = KINDS[index % 8 === 0 ? 1 : 0];
      paths.push(scratch.at(`${index}.deb`));
      await run({}, 'dpkg-deb', [`-Z${kind}`, '--build', scratch.at('tree'), paths.at(-1)!]);
    }
    const seen: string[] = [];
    for await (const result of readDebs({ log }, paths)) {
      if ('error' in result) throw result.error;
      const { stdout } = await run({}, 'dpkg-deb', ['--field', result.path]);
      expect(formatParagraph(result.info.package.control)).toBe(stdout);
      seen.push(result.path);
    }
    expect(seen).toEqual(paths);
    expect(started).toHaveLength(1);
  });
});
