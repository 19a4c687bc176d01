/** Tarballs that npm would unpack with holes are refused; sound ones pass. */
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { inspectTarball } from '../../../src/pkg/node/tarball.ts';

interface Entry {
  readonly name: string;
  readonly flag?: string;
  readonly content?: string;
}

function block(entry: Entry): Buffer {
  const content = Buffer.from(entry.content ?? '');
  const header = Buffer.alloc(512);
  header.write(entry.name.slice(0, 100), 0);
  header.write('0000644\0', 100);
  header.write(`${content.length.toString(8).padStart(11, '0')}\0`, 124);
  header.write('        ', 148);
  header.write(entry.flag ?? '0', 156);
  header.write('ustar\x0000', 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return Buffer.concat([header, content, Buffer.alloc((512 - (content.length % 512)) % 512)]);
}

function tar(...entries: readonly Entry[]): Buffer {
  return Buffer.concat([...entries.map(block), Buffer.alloc(1024)]);
}

/** In pieces of seven bytes: no piece ends where a block does. */
async function* pieces(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 7) yield bytes.subarray(at, at + 7);
}

const inspect = (bytes: Buffer) => inspectTarball(pieces(bytes), 'evil@1.0.0');
const paxRecord = (path: string) => {
  const body = ` path=${path}\n`;
  return `${body.length + 2}${body}`;
};

describe('tarballs', () => {
  const sound = [
    { name: 'package', flag: '5' },
    { name: 'package/package.json', content: '{"name":"x"}' },
    { name: 'PaxHeader', flag: 'x', content: paxRecord(`package/${'d'.repeat(70)}`) },
    { name: 'package/cut', content: 'x'.repeat(1500) },
  ];

  it('takes sound ones, packed or not', async () => {
    await inspect(gzipSync(tar(...sound)));
    await inspect(tar(...sound));
  });

  it.each([
    ['a path with ..', { name: 'package/../../etc/passwd' }, /leaves the package's own folder/],
    ['an absolute path', { name: '/etc/cron.d/x' }, /absolute path/],
    ['a symlink', { name: 'package/x', flag: '2' }, /link or a device/],
    ['a device', { name: 'package/x', flag: '3' }, /link or a device/],
  ])('refuses %s', async (_, entry, message) => {
    const error = await inspect(gzipSync(tar(...sound, entry))).catch((cause: unknown) => cause);
    expect(error).toMatchObject({ code: 'unsafe-tarball', message: expect.stringMatching(message) });
    expect(error).toMatchObject({ message: expect.stringContaining("'evil@1.0.0'") });
  });

  it('looks at the name in a pax header, not at the short one', async () => {
    const hidden = tar({ name: 'PaxHeader', flag: 'x', content: paxRecord('package/../../x') }, { name: 'package/x' });
    await expect(inspect(gzipSync(hidden))).rejects.toMatchObject({ code: 'unsafe-tarball' });
  });

  it.each([
    ['nothing', Buffer.alloc(0)],
    ['text', Buffer.from('<html>not found</html>'.repeat(40))],
    ['half a gzip', gzipSync(tar(...sound)).subarray(0, 60)],
    ['half a tar', tar(...sound).subarray(0, 2300)],
    ['an empty archive', gzipSync(Buffer.alloc(1024))],
  ])('refuses %s', async (_, bytes) => {
    await expect(inspect(bytes)).rejects.toMatchObject({ code: 'broken-tarball' });
  });
});
