import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { clearSign, verifyClearSigned } from '../../../src/deb/openpgp.ts';
import { daysLeft, KeyStore, parseLifetime } from '../../../src/repo/keys.ts';
import { createWorld } from '../../support/world.ts';

const NOW = new Date('2026-11-21T08:00:00Z');
const REQUEST = {
  name: 'Example',
  email: 'a@example.org',
  algorithm: 'ed25519' as const,
  expiresSeconds: 86_400 * 730,
};

describe('the key store', () => {
  it('keeps secret keys for their owner alone and finds them by what a user types', async () => {
    await using world = await createWorld(NOW);
    const store = new KeyStore(world.context);
    const key = await store.generate(REQUEST);
    expect(key).toMatchObject({ algorithm: 'ed25519', userIds: ['Example <a@example.org>'], locked: false });
    expect(daysLeft(key, NOW)).toBe(730);
    const folder = join(world.context.stateDir, 'keys');
    expect((await stat(folder)).mode & 0o777).toBe(0o700);
    expect(await readdir(folder)).toEqual([`${key.fingerprint}.secret.asc`]);
    expect((await stat(join(folder, `${key.fingerprint}.secret.asc`))).mode & 0o777).toBe(0o600);
    for (const wanted of [undefined, key.fingerprint, key.keyId.toLowerCase(), `0x${key.keyId}`, 'A@EXAMPLE']) {
      expect((await store.find(wanted)).fingerprint).toBe(key.fingerprint);
    }
    await expect(store.find('nobody')).rejects.toMatchObject({ code: 'no-key' });
  });

  it('tells what to do without a key, and with too many', async () => {
    await using world = await createWorld(NOW);
    const store = new KeyStore(world.context);
    await expect(store.find()).rejects.toMatchObject({ code: 'no-key', hint: expect.stringContaining('key generate') });
    await store.generate(REQUEST);
    await store.generate({ ...REQUEST, email: 'b@example.org' });
    await expect(store.find()).rejects.toMatchObject({ code: 'key-ambiguous' });
    expect((await store.find('b@example')).userIds).toEqual(['Example <b@example.org>']);
  });

  it('never replaces a key', async () => {
    await using world = await createWorld(NOW);
    await using other = await createWorld(NOW);
    const store = new KeyStore(world.context);
    const key = await store.generate(REQUEST);
    const secret = await (await store.signers([key.fingerprint], NOW))[0]!.key;
    await expect(store.import(secret)).rejects.toMatchObject({ code: 'key-exists' });
    await expect(store.import(await store.exportArmored(key.fingerprint))).rejects.toMatchObject({
      code: 'key-public',
    });
    expect((await new KeyStore(other.context).import(secret)).fingerprint).toBe(key.fingerprint);
  });

  it('signs with what was stored, and refuses an expired key', async () => {
    await using world = await createWorld(NOW);
    const store = new KeyStore(world.context);
    const { fingerprint } = await store.generate(REQUEST);
    const signed = await clearSign('hello\n', await store.signers([fingerprint], NOW), { date: NOW });
    const verified = await verifyClearSigned(signed, [await store.exportBinary(fingerprint)], { date: NOW });
    expect(verified).toMatchObject({ text: 'hello\n', signers: [{ fingerprint }] });
    const later = new Date(NOW.getTime() + 731 * 86_400_000);
    await expect(store.signers([fingerprint], later)).rejects.toMatchObject({ code: 'key-expired' });
  });

  it('asks for the passphrase of a locked key', async () => {
    await using world = await createWorld(NOW);
    const store = new KeyStore(world.context);
    const key = await store.generate({ ...REQUEST, passphrase: 'correct horse' });
    expect(key.locked).toBe(true);
    await expect(store.signers([key.fingerprint], NOW)).rejects.toMatchObject({ code: 'key-locked' });
    const signers = await store.signers([key.fingerprint], NOW, async (asked) =>
      asked.fingerprint === key.fingerprint ? 'correct horse' : undefined,
    );
    expect(await clearSign('hello\n', signers, { date: NOW })).toContain('BEGIN PGP SIGNATURE');
  });
});

describe('a length of life', () => {
  it.each([
    ['2y', 2 * 365 * 86_400],
    ['18m', 18 * 30 * 86_400],
    ['12w', 84 * 86_400],
    ['90d', 90 * 86_400],
    ['never', undefined],
  ])('%s', (text, seconds) => expect(parseLifetime(text)).toBe(seconds));

  it.each(['', '0d', '2', '2h', '-1y', '1y6m'])('refuses %j', (text) => {
    expect(() => parseLifetime(text)).toThrow(expect.objectContaining({ code: 'bad-lifetime' }));
  });
});
