import { mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type Access, AccessLog, accessLine } from '../../../src/repo/access-log.ts';

const ACCESS: Access = {
  address: '192.0.2.7',
  user: undefined,
  at: new Date('2026-11-21T09:05:03.999Z'),
  method: 'GET',
  target: '/dists/bookworm/InRelease',
  httpVersion: '1.1',
  status: 200,
  bytes: 1234,
  referer: undefined,
  agent: 'Debian APT-HTTP/1.3 (2.6.1)',
};

describe('a line of the access log', () => {
  it('is what Apache calls combined', () => {
    expect(accessLine(ACCESS)).toBe(
      '192.0.2.7 - - [21/Nov/2026:09:05:03 +0000] "GET /dists/bookworm/InRelease HTTP/1.1" 200 1234 "-" "Debian APT-HTTP/1.3 (2.6.1)"',
    );
    expect(accessLine({ ...ACCESS, user: 'the ci', status: 304, bytes: 0, referer: 'http://x/' })).toBe(
      '192.0.2.7 - the\\x20ci [21/Nov/2026:09:05:03 +0000] "GET /dists/bookworm/InRelease HTTP/1.1" 304 - "http://x/" "Debian APT-HTTP/1.3 (2.6.1)"',
    );
  });

  it('cannot be forged', () => {
    const evil = 'a" 200 1 "-" "b\n10.0.0.1 - root [x] \r\u001b[2J\u0000\\é';
    for (const part of ['target', 'agent', 'referer', 'user', 'method', 'address'] as const) {
      const line = accessLine({ ...ACCESS, [part]: evil });
      expect(line).toMatch(/^[\x20-\x7e]+$/);
      // unescaped quotes are those of the three fields
      expect(line.replaceAll(/\\./g, '').match(/"/g)).toHaveLength(6);
    }
    expect(accessLine({ ...ACCESS, agent: 'x'.repeat(100_000) }).length).toBeLessThan(2500);
  });

  it('goes to a new file after the old one was moved', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'buildkit-test-'));
    const path = join(folder, 'access.log');
    {
      await using log = await AccessLog.open(path, () => {});
      log.write(ACCESS);
      await rename(path, `${path}.1`);
      await log.reopen();
      log.write({ ...ACCESS, status: 404 });
    }
    expect(await readFile(`${path}.1`, 'utf8')).toMatch(/ 200 1234 .*\n$/);
    expect(await readFile(path, 'utf8')).toMatch(/ 404 1234 .*\n$/);
    await rm(folder, { recursive: true });
    await expect(AccessLog.open(join(folder, 'no/such/file'), () => {})).rejects.toThrow();
  });
});
