/** Packages made to mislead, in xz and in size: what the fast tests in test/unit/deb cannot do without programs. */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/core/errors.ts';
import { run } from '../../src/core/run.ts';
import { extractDeb, listDeb, readDeb, readDebs, writeDeb } from '../../src/deb/archive.ts';
import { xzContentSize } from '../../src/deb/xz.ts';
import {
  CONTROL_TEXT,
  createScratch,
  debSpec,
  file,
  rawAr,
  rawDeb,
  rawTar,
  type Scratch,
} from '../support/deb-builder.ts';

const EPOCH = 1_700_000_000;
const MINUTE = 60_000;

/** Runs a compressor with files, as `run` hands out text only. */
async function pack(scratch: Scratch, content: Uint8Array, program: string, ...args: string[]): Promise<Buffer> {
  await scratch.put('pack.in', content);
  await run({}, 'sh', [
    '-c',
    'out=$1; in=$2; shift 2; "$@" <"$in" >"$out"',
    'sh',
    scratch.at('pack.out'),
    scratch.at('pack.in'),
    program,
    ...args,
  ]);
  return readFile(scratch.at('pack.out'));
}

async function refusal(work: Promise<unknown>): Promise<UserError> {
  const error = await work.then(
    () => new Error('taken as good'),
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(UserError);
  return error as UserError;
}

async function listAll(path: string): Promise<number> {
  let count = 0;
  for await (const _ of listDeb({}, path)) count += 1;
  return count;
}

const controlTar = (name: string) => rawTar([{ name: './control', data: CONTROL_TEXT.replace('sample', name) }]);
const debWithControl = (data: Uint8Array, member = 'control.tar.xz') =>
  rawDeb({ controlMember: { name: member, data } });

describe('the size of an .xz file, from outside', () => {
  it.each([
    ['as xz makes it', []],
    ['without a check', ['--check=none']],
    ['with SHA-256', ['--check=sha256']],
    ['in many blocks', ['--block-size=5000']],
    ['in many blocks by many threads', ['--block-size=5000', '--threads=2']],
    ['with a filter for machine code', ['--x86', '--lzma2=preset=1']],
    ['with a chunk of every kind', ['--lzma2=preset=0,dict=4KiB']],
    ['at -9', ['-9']],
  ])('is right: %s', { timeout: MINUTE }, async (_title, args) => {
    await using scratch = await createScratch();
    const mixed = Buffer.concat([randomBytes(200_000), Buffer.alloc(300_000, 'text'), randomBytes(3)]);
    for (const content of [mixed, Buffer.alloc(0), Buffer.from('x')]) {
      const packed = await pack(scratch, content, 'xz', '--stdout', ...args);
      expect(xzContentSize(packed)).toBe(content.length);
      const wrong = [
        packed.subarray(0, -1),
        packed.subarray(1),
        Buffer.concat([packed, Buffer.alloc(4)]),
        Buffer.concat([packed, packed]),
      ];
      for (const bytes of wrong) expect(xzContentSize(bytes)).toBeUndefined();
    }
  });
});

describe('hostile control members', () => {
  it('do not disturb their neighbours in a batch', { timeout: MINUTE }, async () => {
    await using scratch = await createScratch();
    const paths: string[] = [];
    const broken = new Set([3, 17, 18, 39]);
    for (let index = 0; index < 40; index += 1) {
      const packed = await pack(scratch, controlTar(`sample${index}`), 'xz', '--stdout');
      if (broken.has(index)) packed[60]! ^= 0xff; // inside the content: only the decoder can tell
      paths.push(await scratch.put(`${index}.deb`, debWithControl(packed)));
    }
    let index = 0;
    for await (const result of readDebs({}, paths)) {
      if (broken.has(index))
        expect(result).toMatchObject({
          error: { code: 'deb-broken', file: paths[index], message: expect.stringContaining('control.tar.xz') },
        });
      else expect(result).toMatchObject({ info: { package: { name: `sample${index}` } } });
      index += 1;
    }
    expect(index).toBe(40);
  });

  it('cannot swallow the next one or claim a part of it', { timeout: MINUTE }, async () => {
    await using scratch = await createScratch();
    const honest = await pack(scratch, controlTar('honest'), 'xz', '--stdout', '--check=crc32');
    const evil = await pack(
      scratch,
      Buffer.concat([controlTar('evil'), controlTar('fake')]),
      'xz',
      '--stdout',
      '--check=crc32',
    );
    const lies: Buffer[] = [
      withContentSize(evil, 10_240), // its index says that half of its content is all
      withContentSize(evil, 40_960),
      evil.subarray(0, evil.length - 28), // it goes on in what follows
      Buffer.concat([evil.subarray(0, evil.length - 12), honest.subarray(-12)]),
      Buffer.concat([evil, evil]),
    ];
    for (const lie of lies) {
      const paths = [
        await scratch.put('evil.deb', debWithControl(lie)),
        await scratch.put('honest.deb', debWithControl(honest)),
        await scratch.put('evil2.deb', debWithControl(lie)),
      ];
      const results = [];
      for await (const result of readDebs({}, paths))
        results.push('info' in result ? result.info.package.name : (result.error as UserError).code);
      expect(results).toEqual([
        expect.stringMatching(/^(deb|tar)-broken$/),
        'honest',
        expect.stringMatching(/-broken$/),
      ]);
    }
  });

  it('are refused by their size before they are decoded', { timeout: MINUTE }, async () => {
    await using scratch = await createScratch();
    const zeros = Buffer.alloc(200 * 1024 * 1024);
    for (const [suffix, ...command] of [
      ['xz', 'xz', '-0', '--stdout'],
      ['gz', 'gzip', '-1', '--stdout'],
      ['zst', 'zstd', '--quiet', '--stdout'],
    ] as const) {
      const [program, ...args] = command;
      const packed = await pack(scratch, zeros, program, ...args);
      expect(packed.length).toBeLessThan(2_000_000);
      const path = await scratch.put('bomb.deb', debWithControl(packed, `control.tar.${suffix}`));
      const start = performance.now();
      expect(await refusal(readDeb({}, path))).toMatchObject({
        code: 'deb-too-large',
        file: path,
        message: expect.stringContaining(`control.tar.${suffix}`),
      });
      expect(performance.now() - start).toBeLessThan(5000);
    }
  });

  it('of 100 MB are refused in little memory', { timeout: MINUTE }, async () => {
    await using scratch = await createScratch();
    const tar = rawTar([
      {
        name: './control',
        data: Buffer.concat([
          Buffer.from(CONTROL_TEXT),
          Buffer.from('X: '),
          Buffer.alloc(100_000_000, 'x'),
          Buffer.from('\n'),
        ]),
      },
    ]);
    await scratch.put('plain.deb', debWithControl(tar, 'control.tar'));
    await scratch.put('xz.deb', debWithControl(await pack(scratch, tar, 'xz', '-0', '--stdout')));
    for (const name of ['plain.deb', 'xz.deb']) {
      const { code, megabytes } = await inChild(
        scratch,
        `await archive.readDeb({}, ${JSON.stringify(scratch.at(name))})`,
      );
      expect(code).toBe('deb-too-large');
      expect(megabytes).toBeLessThan(200);
    }
  });
});

describe('many large control members', () => {
  it('are held one after the other', { timeout: MINUTE }, async () => {
    await using scratch = await createScratch();
    const tar = rawTar([
      { name: './control', data: CONTROL_TEXT },
      { name: './md5sums', data: Buffer.alloc(60 * 1024 * 1024, 'sum') },
    ]);
    const path = await scratch.put('large.deb', debWithControl(await pack(scratch, tar, 'xz', '-0', '--stdout')));
    const { code, megabytes } = await inChild(
      scratch,
      `for await (const one of archive.readDebs({}, Array(24).fill(${JSON.stringify(path)}))) if (!one.info) throw one.error`,
    );
    expect(code).toBe('done');
    expect(megabytes).toBeLessThan(700); // all of them are 1.5 GB
  });
});

/** Rewrites the first record of the index with another size of the content, checksum and all. Sizes of equal length only. */
function withContentSize(packed: Buffer, size: number): Buffer {
  const bytes = Buffer.from(packed);
  const indexSize = (bytes.readUInt32LE(bytes.length - 8) + 1) * 4;
  const start = bytes.length - 12 - indexSize;
  let at = start + 2; // indicator, number of records
  while (bytes[at]! >= 0x80) at += 1;
  at += 1;
  bytes[at] = (size & 0x7f) | 0x80;
  bytes[at + 1] = ((size >> 7) & 0x7f) | 0x80;
  bytes[at + 2] = size >> 14;
  bytes.writeUInt32LE(crc32(bytes.subarray(start, start + indexSize - 4)), start + indexSize - 4);
  return bytes;
}

describe('hostile data members', () => {
  it('that ask for 4 GiB to decode are refused', { timeout: MINUTE }, async () => {
    await using scratch = await createScratch();
    const packed = await pack(scratch, rawTar([{ name: './x', data: 'x' }]), 'xz', '--stdout');
    const headerSize = (packed[12]! + 1) * 4;
    const property = packed.indexOf(Buffer.from([0x21, 0x01]), 12) + 2;
    packed[property] = 40;
    packed.writeUInt32LE(crc32(packed.subarray(12, 12 + headerSize - 4)), 12 + headerSize - 4);
    const path = await scratch.put('x.deb', rawDeb({ dataMember: { name: 'data.tar.xz', data: packed } }));
    expect(await refusal(listAll(path))).toMatchObject({
      code: 'deb-broken',
      message: expect.stringMatching(/data\.tar\.xz.*[Mm]emory/),
    });
  });

  it.each(['xz', 'zstd', 'gzip'] as const)(
    'cut or changed in %s are an error that names the member',
    { timeout: 2 * MINUTE },
    async (compression) => {
      await using scratch = await createScratch();
      const content = Buffer.concat([randomBytes(3000), Buffer.alloc(50_000, 'text')]);
      const { path } = await writeDeb({}, scratch.at('good.deb'), debSpec([file('/usr/x', content)]), {
        sourceDateEpoch: EPOCH,
        compression,
      });
      const bytes = await readFile(path);
      const data = (await readDeb({}, path)).members.at(-1)!;
      const { control } = { control: bytes.subarray(0, data.offset - 60) };
      for (let length = 0; length < data.size; length += compression === 'xz' ? 301 : 37) {
        const member = { name: data.name, data: bytes.subarray(data.offset, data.offset + length) };
        const cut = await scratch.put('cut.deb', Buffer.concat([control, rawAr([member]).subarray(8)]));
        expect((await readDeb({}, cut)).package.name).toBe('sample');
        for (const work of [() => listAll(cut), () => extractDeb({}, cut, scratch.at('out'))]) {
          expect(await refusal(work())).toMatchObject({
            code: 'deb-broken',
            file: cut,
            message: expect.stringContaining(data.name),
          });
        }
        const changed = Buffer.from(bytes);
        changed[data.offset + length]! ^= 0x55;
        const outcome = await listAll(await scratch.put('changed.deb', changed)).catch((error: unknown) => error);
        if (typeof outcome !== 'number') expect(outcome).toBeInstanceOf(UserError);
      }
    },
  );

  it('of gigabytes pass through in little memory', { timeout: 2 * MINUTE }, async () => {
    await using scratch = await createScratch();
    // a tar header that announces 1 GB, then nothing but zeros
    const size = 1_000_000_000;
    await run({}, 'sh', [
      '-c',
      '{ cat "$1"; head -c 1000000000 /dev/zero; head -c 10240 /dev/zero; } | zstd --quiet --stdout >"$2"',
      'sh',
      await scratch.put('header', rawTar([{ name: './zeros', size }], false)),
      scratch.at('data'),
    ]);
    const data = await readFile(scratch.at('data'));
    expect(data.length).toBeLessThan(1_000_000);
    const path = await scratch.put('x.deb', rawDeb({ dataMember: { name: 'data.tar.zst', data } }));
    const { code, megabytes } = await inChild(
      scratch,
      `for await (const one of archive.listDeb({}, ${JSON.stringify(path)})) if (one.size !== ${size}) throw new Error(one.path)`,
    );
    expect(code).toBe('done');
    expect(megabytes).toBeLessThan(250);
  });

  it('larger than memory are written in little memory', { timeout: 2 * MINUTE }, async () => {
    await using scratch = await createScratch();
    const { code, megabytes } = await inChild(
      scratch,
      `const block = Buffer.alloc(1 << 20, 'block');
       const open = async function* () { for (let count = 0; count < 600; count += 1) yield block; };
       const entry = { path: '/big', type: 'file', mode: 0o644, source: { open, size: 600 << 20 } };
       await archive.writeDeb({}, ${JSON.stringify(scratch.at('big.deb'))}, support.debSpec([entry]), { sourceDateEpoch: 1, compression: 'zstd' })`,
    );
    expect(code).toBe('done');
    expect(megabytes).toBeLessThan(250);
    expect(await listAll(scratch.at('big.deb'))).toBe(2);
  });
});

/** Runs `body` in a process of its own; its peak memory, and the code of the error that ended it, or 'done'. */
async function inChild(scratch: Scratch, body: string): Promise<{ code: string; megabytes: number }> {
  const url = (path: string) => JSON.stringify(new URL(path, import.meta.url).href);
  const script = `
    import { readFileSync } from 'node:fs';
    import * as archive from ${url('../../src/deb/archive.ts')};
    import * as support from ${url('../support/deb-builder.ts')};
    let code = 'done';
    try { ${body} } catch (error) { code = String(error.code ?? error); }
    const peak = /VmHWM:\\s+(\\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))[1]; // maxRSS counts the parent's, too
    console.log(JSON.stringify({ code, megabytes: peak / 1024 }));
  `;
  const { stdout } = await run({}, process.execPath, [await scratch.put('child.ts', script)]);
  return JSON.parse(stdout);
}
