import { describe, expect, it } from 'vitest';
import { getField } from '../../../src/deb/control.ts';
import {
  armorKey,
  clearSign,
  detachSign,
  exportPublic,
  extendKey,
  type GeneratedKey,
  generateKey,
  readKey,
  readKeys,
  readSigned,
  revokeKey,
  verifyClearSigned,
  verifyDetached,
} from '../../../src/deb/openpgp.ts';

const DAY = 86_400_000;
const date = new Date('2026-01-02T03:04:05Z');
const later = new Date(date.getTime() + DAY);
const TEXT = 'Origin: Test\nSuite: bookworm\n\n- dash\n-----ä\nFrom here\n';

function make(more: Partial<Parameters<typeof generateKey>[0]> = {}): Promise<GeneratedKey> {
  return generateKey({ name: 'Test Archive', email: 'test@example.org', date, ...more });
}

const [one, two, brief, locked] = await Promise.all([
  make(),
  make(),
  make({ expiresSeconds: 3600 }),
  make({ passphrase: 'open sesame' }),
]);

describe('keys', () => {
  it('are described', async () => {
    expect(await readKey(one.privateKeyArmored)).toEqual({
      fingerprint: one.fingerprint,
      keyId: one.fingerprint.slice(-16),
      userIds: ['Test Archive <test@example.org>'],
      algorithm: 'ed25519',
      created: date,
      revoked: false,
      secret: true,
      locked: false,
    });
    expect(one.fingerprint).toMatch(/^[0-9A-F]{40}$/);
    expect(await readKey(brief.publicKeyArmored)).toMatchObject({
      secret: false,
      expires: new Date(date.getTime() + 3_600_000),
    });
    expect(await readKey(locked.privateKeyArmored)).toMatchObject({ secret: true, locked: true });
  });

  it('go to binary and back, secret parts left behind', async () => {
    const binary = await exportPublic(one.privateKeyArmored, 'binary');
    expect(await readKey(binary)).toMatchObject({ fingerprint: one.fingerprint, secret: false });
    expect(await exportPublic(binary, 'armored')).toBe(one.publicKeyArmored);
    expect(await armorKey(one.privateKeyArmored)).toBe(one.privateKeyArmored);
    expect(one.publicKeyArmored).not.toContain('\r');
  });

  it('come several in one keyring: binary, armored, or armored blocks one after the other', async () => {
    const both = `${one.publicKeyArmored}\n${two.publicKeyArmored}`;
    const wanted = [one.fingerprint, two.fingerprint];
    const binary = await exportPublic(both, 'binary');
    for (const ring of [both, binary, await exportPublic(binary, 'armored'), Buffer.from(both)]) {
      expect((await readKeys(ring)).map((key) => key.fingerprint)).toEqual(wanted);
    }
    await expect(readKey(both)).rejects.toMatchObject({ code: 'key-several' });
    await expect(armorKey(both)).rejects.toMatchObject({ code: 'key-several' });
  });

  it.each([
    '',
    'nonsense',
    '-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nxxxx\n-----END PGP PUBLIC KEY BLOCK-----\n',
    new Uint8Array([1, 2, 3]),
    new Uint8Array(),
  ])('refuses what is none (%#)', async (data) => {
    await expect(readKeys(data)).rejects.toMatchObject({ code: 'key-unreadable' });
  });

  it.each([
    ['', 'a@example.org'],
    ['A <b>', 'a@example.org'],
    ['A\nB', 'a@example.org'],
    ['A', 'nobody'],
    ['A', 'a b@example.org'],
  ])('refuses the user id %j %j', async (name, email) => {
    await expect(generateKey({ name, email, date })).rejects.toMatchObject({ code: 'key-user-id' });
  });
});

describe('signing', () => {
  it('gives the same bytes for the same text, key and date', async () => {
    const keys = [{ key: one.privateKeyArmored }];
    const signed = await clearSign(TEXT, keys, { date });
    expect(await clearSign(TEXT, keys, { date })).toBe(signed);
    expect(await clearSign(TEXT, keys, { date: later })).not.toBe(signed);
    expect(signed).not.toContain('\r');
    expect(signed.startsWith('-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nOrigin: Test\n')).toBe(true);
    expect(await detachSign(TEXT, keys, { date })).toBe(await detachSign(Buffer.from(TEXT), keys, { date }));
    expect(await detachSign(TEXT, keys, { date, armor: false })).toEqual(
      await detachSign(TEXT, keys, { date, armor: false }),
    );
  });

  it('needs a secret key that is good at the date, and its passphrase', async () => {
    const code = (key: string, at: Date, passphrase?: string) =>
      clearSign(TEXT, [{ key, passphrase }], { date: at }).then(
        () => 'signed',
        (error) => error.code,
      );
    expect(await code(brief.privateKeyArmored, date)).toBe('signed');
    expect(await code(brief.privateKeyArmored, later)).toBe('key-expired');
    expect(await code(one.publicKeyArmored, date)).toBe('key-not-secret');
    expect(await code(locked.privateKeyArmored, date)).toBe('key-passphrase');
    expect(await code(locked.privateKeyArmored, date, 'wrong')).toBe('key-passphrase');
    expect(await code(locked.privateKeyArmored, date, 'open sesame')).toBe('signed');
    expect(await code(one.privateKeyArmored, new Date(date.getTime() - DAY))).toBe('key-cannot-sign');
    expect(await code('nonsense', date)).toBe('key-unreadable');
    await expect(clearSign(TEXT, [], { date })).rejects.toMatchObject({ code: 'key-none' });
    await expect(detachSign(TEXT, [], { date })).rejects.toMatchObject({ code: 'key-none' });
  });

  it.each(['A: b', 'A: b \nC: d\n', 'A: b\t\n', 'A: b\r\n', ''])(
    'refuses a text that would not come back the same: %j',
    async (text) => {
      await expect(clearSign(text, [{ key: one.privateKeyArmored }], { date })).rejects.toMatchObject({
        code: 'sign-text',
      });
    },
  );

  it('refuses a kind of key that Debian 12 does not know', async () => {
    const { generateKey: generate } = await import('openpgp');
    const { privateKey } = await generate({ type: 'curve25519', userIDs: [{ name: 'x' }], date, format: 'armored' });
    await expect(clearSign(TEXT, [{ key: privateKey }], { date })).rejects.toMatchObject({ code: 'key-unsupported' });
  });
});

describe('verifyClearSigned', () => {
  const sign = (...keys: GeneratedKey[]) =>
    clearSign(
      TEXT,
      keys.map((key) => ({ key: key.privateKeyArmored })),
      { date },
    );
  const check = async (signed: string | Uint8Array, ...keys: GeneratedKey[]) =>
    verifyClearSigned(
      signed,
      keys.map((key) => key.publicKeyArmored),
      { date: later, file: 'InRelease' },
    );

  it('gives the text and who signed it', async () => {
    const signed = await sign(one);
    const expected = { text: TEXT, signers: [{ fingerprint: one.fingerprint, signedAt: date }] };
    expect(await check(signed, one)).toEqual(expected);
    expect(await check(Buffer.from(signed), two, one)).toEqual(expected);
    expect(await check(signed.replaceAll('\n', '\r\n'), one)).toEqual(expected);
    expect(await check(signed.trimEnd(), one)).toEqual(expected);
    expect(await check(`${signed}\n\n`, one)).toEqual(expected);
  });

  it('is content with one known signer of several', async () => {
    const signed = await sign(one, two);
    expect((await check(signed, one, two)).signers.map((signer) => signer.fingerprint)).toEqual([
      one.fingerprint,
      two.fingerprint,
    ]);
    expect((await check(signed, two)).signers.map((signer) => signer.fingerprint)).toEqual([two.fingerprint]);
  });

  it.each<[string, (signed: string) => string, string]>([
    ['a changed text', (signed) => signed.replace('bookworm', 'bookwurm'), 'signature-bad'],
    ['a line added', (signed) => signed.replace('Suite:', 'Evil: yes\nSuite:'), 'signature-bad'],
    ['a line left out', (signed) => signed.replace('Suite: bookworm\n', ''), 'signature-bad'],
    [
      'a changed signature',
      (signed) => signed.replace(/\n(w.)(.)/, (_all, a, b) => `\n${a}${b === 'A' ? 'B' : 'A'}`),
      'signature-',
    ],
    ['text above', (signed) => `Evil: yes\n\n${signed}`, 'signature-framing'],
    ['text below', (signed) => `${signed}\nEvil: yes\n`, 'signature-framing'],
    ['a second message', (signed) => signed + signed, 'signature-framing'],
    ['no end', (signed) => signed.replace(/-----END[\s\S]*/, ''), 'signature-framing'],
    ['no signature block', (signed) => signed.replace(/-----BEGIN PGP SIGNATURE[\s\S]*/, ''), 'signature-framing'],
    ['no signature at all', () => TEXT, 'signature-missing'],
    ['nothing', () => '', 'signature-missing'],
    ['a hidden header', (signed) => signed.replace('Hash: SHA512', 'Hash: SHA512\nEvil: yes'), 'signature-framing'],
  ])('refuses %s', async (_what, change, code) => {
    await expect(check(change(await sign(one)), one)).rejects.toMatchObject({
      code: expect.stringMatching(new RegExp(`^${code}`)),
      file: 'InRelease',
    });
  });

  it('refuses unknown, expired and future signers', async () => {
    await expect(check(await sign(one), two)).rejects.toMatchObject({ code: 'signature-unknown-key' });
    await expect(check(await sign(one))).rejects.toMatchObject({ code: 'signature-unknown-key' });
    // it signed while it was good: gpgv (EXPKEYSIG) and apt refuse that too
    await expect(check(await sign(brief), brief)).rejects.toMatchObject({ code: 'signature-expired' });
    await expect(check(await sign(brief, one), brief, one)).resolves.toMatchObject({
      signers: [{ fingerprint: one.fingerprint }],
    });
    const early = verifyClearSigned(
      await clearSign(TEXT, [{ key: one.privateKeyArmored }], { date: later }),
      [one.publicKeyArmored],
      { date },
    );
    await expect(early).rejects.toMatchObject({ code: 'signature-future' });
  });

  it('is spoilt by one bad signature of a known key', async () => {
    const armored = /(-----BEGIN PGP SIGNATURE-----[\s\S]*)/;
    const [good, bad] = [await sign(one), await clearSign(`${TEXT}x\n`, [{ key: two.privateKeyArmored }], { date })];
    const { readSignature, armor, enums } = await import('openpgp');
    const packets = await Promise.all(
      [good, bad].map((signed) => readSignature({ armoredSignature: armored.exec(signed)![1]! })),
    );
    const joined = armor(
      enums.armor.signature,
      Buffer.concat(packets.map((packet) => packet.write() as Uint8Array)),
    ).replaceAll('\r\n', '\n');
    const both = good.replace(armored, joined);
    await expect(check(both, one)).resolves.toMatchObject({ signers: [{ fingerprint: one.fingerprint }] });
    await expect(check(both, one, two)).rejects.toMatchObject({ code: 'signature-bad' });
  });
});

describe('verifyDetached', () => {
  it('takes armored and binary signatures of bytes', async () => {
    const bytes = new Uint8Array([0, 13, 10, 255, 32, 10]);
    const keys = [{ key: one.privateKeyArmored }, { key: two.privateKeyArmored }];
    for (const signature of [
      await detachSign(bytes, keys, { date }),
      await detachSign(bytes, keys, { date, armor: false }),
    ]) {
      const { signers } = await verifyDetached(bytes, signature, [one.publicKeyArmored, two.publicKeyArmored], {
        date,
      });
      expect(signers.map((signer) => signer.fingerprint)).toEqual([one.fingerprint, two.fingerprint]);
      await expect(
        verifyDetached(bytes.subarray(1), signature, [one.publicKeyArmored], { date }),
      ).rejects.toMatchObject({ code: 'signature-bad' });
      await expect(verifyDetached(bytes, signature, [brief.publicKeyArmored], { date })).rejects.toMatchObject({
        code: 'signature-unknown-key',
      });
    }
    await expect(verifyDetached(bytes, 'nonsense', [one.publicKeyArmored], { date })).rejects.toMatchObject({
      code: 'signature-framing',
    });
    await expect(verifyDetached(bytes, new Uint8Array(), [one.publicKeyArmored], { date })).rejects.toMatchObject({
      code: 'signature-framing',
    });
  });
});

describe('extendKey', () => {
  const expires = new Date(date.getTime() + 365 * DAY);

  it('gives an expired key a new date; what it signed before stays good', async () => {
    const signed = await clearSign(TEXT, [{ key: brief.privateKeyArmored }], { date });
    const longer = await extendKey({ key: brief.privateKeyArmored }, expires, { date: later });
    expect(await readKey(longer.privateKeyArmored)).toMatchObject({
      fingerprint: brief.fingerprint,
      created: date,
      expires,
      locked: false,
    });
    expect(await readKey(longer.publicKeyArmored)).toMatchObject({
      expires,
      secret: false,
      userIds: ['Test Archive <test@example.org>'],
    });
    const again = await clearSign(TEXT, [{ key: longer.privateKeyArmored }], { date: later });
    for (const text of [signed, again]) {
      const { signers } = await verifyClearSigned(text, [longer.publicKeyArmored], { date: later });
      expect(signers).toMatchObject([{ fingerprint: brief.fingerprint }]);
    }
    const endless = await extendKey({ key: longer.privateKeyArmored }, undefined, {
      date: new Date(later.getTime() + 1000),
    });
    expect((await readKey(endless.publicKeyArmored)).expires).toBeUndefined();
  });

  it('keeps the passphrase, and wants it', async () => {
    const key = locked.privateKeyArmored;
    const longer = await extendKey({ key, passphrase: 'open sesame' }, expires, { date: later });
    expect(await readKey(longer.privateKeyArmored)).toMatchObject({ locked: true, expires });
    await expect(
      clearSign(TEXT, [{ key: longer.privateKeyArmored, passphrase: 'open sesame' }], { date: later }),
    ).resolves.toContain('SIGNED');
    await expect(extendKey({ key }, expires, { date: later })).rejects.toMatchObject({ code: 'key-passphrase' });
    await expect(extendKey({ key: one.publicKeyArmored }, expires, { date: later })).rejects.toMatchObject({
      code: 'key-not-secret',
    });
    await expect(extendKey({ key: one.privateKeyArmored }, date, { date: later })).rejects.toMatchObject({
      code: 'key-expiry',
    });
  });
});

describe('revokeKey', () => {
  it('makes a public key that nothing is good with any more', async () => {
    const signed = await clearSign(TEXT, [{ key: one.privateKeyArmored }], { date });
    const revoked = await revokeKey(
      { key: one.privateKeyArmored },
      { date: later, reason: 'compromised', text: 'stolen' },
    );
    expect(await readKey(revoked.publicKeyArmored)).toMatchObject({
      fingerprint: one.fingerprint,
      revoked: true,
      secret: false,
    });
    expect(revoked.certificateArmored).toMatch(/^-----BEGIN PGP PUBLIC KEY BLOCK-----\n/);
    const check = verifyClearSigned(signed, [revoked.publicKeyArmored], { date: later });
    await expect(check).rejects.toMatchObject({ code: 'signature-key-revoked' });
    await expect(revokeKey({ key: one.publicKeyArmored }, { date })).rejects.toMatchObject({ code: 'key-not-secret' });
  });
});

describe('readSigned', () => {
  it('gives the paragraphs of the signed part only', async () => {
    const signed = await clearSign('Origin: Test\n\nA: b\n', [{ key: one.privateKeyArmored }], { date });
    const read = await readSigned(signed, [one.publicKeyArmored], { date });
    expect(read.paragraphs.map((paragraph) => paragraph.fields.map((field) => field.name))).toEqual([
      ['Origin'],
      ['A'],
    ]);
    expect(getField(read.paragraphs[0]!, 'origin')).toBe('Test');
    expect(read.text).toBe('Origin: Test\n\nA: b\n');
    await expect(readSigned('Origin: Test\n', [one.publicKeyArmored], { date })).rejects.toMatchObject({
      code: 'signature-missing',
    });
  });
});
