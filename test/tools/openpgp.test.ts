/** Our signatures through the real gpgv (what apt of Debian 12 uses) and gpg, and theirs through us. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunResult, run } from '../../src/core/run.ts';
import { getField } from '../../src/deb/control.ts';
import {
  clearSign,
  detachSign,
  exportPublic,
  extendKey,
  type GeneratedKey,
  generateKey,
  readKey,
  readSigned,
  revokeKey,
  type SigningKey,
  verifyClearSigned,
  verifyDetached,
} from '../../src/deb/openpgp.ts';
import { ARCHIVE_KEYRING } from '../../src/deb/suites.ts';
import { fetchRelease } from '../support/packages-index.ts';
import { createWorld, type World } from '../support/world.ts';

const RELEASE = `Origin: Test
Suite: bookworm
Date: Sat, 21 Nov 2026 08:00:00 UTC
Description: ä €
- a dash
From here
SHA256:
 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 main/binary-amd64/Packages

`;

let world: World;
let release: string;
const now = new Date(Date.now() - 60_000);

beforeAll(async () => {
  world = await createWorld();
  release = join(world.path, 'Release');
  await writeFile(release, RELEASE);
});
afterAll(() => world[Symbol.asyncDispose]());

function make(more: Partial<Parameters<typeof generateKey>[0]> = {}): Promise<GeneratedKey> {
  return generateKey({
    name: 'Test Archive',
    email: 'test@example.org',
    date: new Date(now.getTime() - 3_600_000),
    ...more,
  });
}

async function keyring(...keys: GeneratedKey[]): Promise<string> {
  const file = join(world.path, `${keys.map((key) => key.fingerprint).join('-')}.gpg`);
  await writeFile(file, await exportPublic(keys.map((key) => key.publicKeyArmored).join('\n'), 'binary'));
  return file;
}

/** gpgv, whatever it says; the machine-readable status is on stdout. */
function gpgv(ring: string, ...args: string[]): Promise<RunResult> {
  return run({}, 'gpgv', ['--homedir', world.path, '--status-fd', '1', '--keyring', ring, ...args], {
    okExitCodes: [1, 2],
  });
}

/** The words after `[GNUPG:] ` that tell what became of each signature. */
function verdicts({ stdout }: RunResult): string[] {
  const found = stdout.matchAll(/^\[GNUPG:\] (GOODSIG|BADSIG|EXPKEYSIG|REVKEYSIG|NO_PUBKEY|ERRSIG|NODATA) /gm);
  return [...found].map((match) => match[1]!);
}

const secret = (key: GeneratedKey, passphrase?: string): SigningKey => ({ key: key.privateKeyArmored, passphrase });

describe('what we sign, by gpgv', () => {
  it.each(['ed25519', 'rsa4096'] as const)(
    '%s: clear, detached armored and detached binary',
    { timeout: 120_000 },
    async (algorithm) => {
      const key = await make({ algorithm });
      const ring = await keyring(key);
      expect((await readKey(key.publicKeyArmored)).algorithm).toBe(algorithm);

      const inRelease = join(world.path, `InRelease.${algorithm}`);
      const output = join(world.path, `output.${algorithm}`);
      await writeFile(inRelease, await clearSign(RELEASE, [secret(key)], { date: now }));
      const clear = await gpgv(ring, '--output', output, inRelease);
      expect([clear.exitCode, verdicts(clear)]).toEqual([0, ['GOODSIG']]);
      expect(clear.stdout).toContain(`VALIDSIG ${key.fingerprint} `);
      expect(await readFile(output, 'utf8')).toBe(RELEASE);

      for (const armor of [true, false] as const) {
        const detached = join(world.path, `Release.${algorithm}.${armor}.gpg`);
        await writeFile(
          detached,
          armor
            ? await detachSign(RELEASE, [secret(key)], { date: now })
            : await detachSign(RELEASE, [secret(key)], { date: now, armor }),
        );
        expect(verdicts(await gpgv(ring, detached, release))).toEqual(['GOODSIG']);
      }

      // the armored key is the same keyring once gpg has taken the armor off, as apt does with Signed-By: *.asc
      const dearmored = join(world.path, `dearmored.${algorithm}`);
      await run({}, 'gpg', ['--homedir', world.path, '--batch', '--output', dearmored, '--dearmor'], {
        input: key.publicKeyArmored,
      });
      expect(await readFile(dearmored)).toEqual(await readFile(ring));
    },
  );

  it('is good by each key of a rotation, alone and together', async () => {
    const [old, fresh] = [await make(), await make()];
    const file = join(world.path, 'rotation');
    await writeFile(file, await clearSign(RELEASE, [secret(old), secret(fresh)], { date: now }));
    expect(verdicts(await gpgv(await keyring(old, fresh), file))).toEqual(['GOODSIG', 'GOODSIG']);
    for (const ring of [await keyring(old), await keyring(fresh)]) {
      const result = await gpgv(ring, file);
      expect(verdicts(result).sort()).toEqual(['ERRSIG', 'GOODSIG', 'NO_PUBKEY']);
    }
  });

  it('is refused by both when changed, foreign or from a key that has expired since', async () => {
    const [key, foreign] = [await make(), await make()];
    const brief = await make({ expiresSeconds: 3_610 });
    const cases: [string, GeneratedKey, string, string, string][] = [
      [
        'changed',
        key,
        (await clearSign(RELEASE, [secret(key)], { date: now })).replace('bookworm', 'bookwurm'),
        'BADSIG',
        'signature-bad',
      ],
      [
        'foreign',
        key,
        await clearSign(RELEASE, [secret(foreign)], { date: now }),
        'NO_PUBKEY',
        'signature-unknown-key',
      ],
      ['expired', brief, await clearSign(RELEASE, [secret(brief)], { date: now }), 'EXPKEYSIG', 'signature-expired'],
    ];
    for (const [name, trusted, signed, verdict, code] of cases) {
      const file = join(world.path, name);
      await writeFile(file, signed);
      const result = await gpgv(await keyring(trusted), file);
      expect([name, verdicts(result)]).toEqual([name, expect.arrayContaining([verdict])]);
      const date = new Date(now.getTime() + 60_000);
      await expect(verifyClearSigned(signed, [trusted.publicKeyArmored], { date })).rejects.toMatchObject({ code });
    }
  });
});

describe('a key that changes, by gpgv', () => {
  it('is good again once extended, and not once revoked', async () => {
    const brief = await make({ expiresSeconds: 3_610 });
    const file = join(world.path, 'extended');
    await writeFile(file, await clearSign(RELEASE, [secret(brief)], { date: now }));
    expect(verdicts(await gpgv(await keyring(brief), file))).toEqual(['EXPKEYSIG']);
    const longer = await extendKey(secret(brief), new Date(now.getTime() + 86_400_000), { date: now });
    expect(verdicts(await gpgv(await keyring(longer), file))).toEqual(['GOODSIG']);
    await writeFile(file, await clearSign(RELEASE, [secret(longer)], { date: now }));
    expect(verdicts(await gpgv(await keyring(longer), file))).toEqual(['GOODSIG']);
    const revoked = await revokeKey(secret(longer), { date: now, reason: 'compromised' });
    expect(verdicts(await gpgv(await keyring({ ...longer, ...revoked }), file))).toEqual(['REVKEYSIG']);
  });
});

describe('gpg and we', () => {
  let home: string;
  const gpg = (args: string[], input?: string) =>
    run(
      {},
      'gpg',
      ['--homedir', home, '--batch', '--yes', '--pinentry-mode', 'loopback', ...args],
      input === undefined ? {} : { input },
    );

  beforeAll(async () => {
    home = join(world.path, 'gnupg');
    await mkdir(home, { mode: 0o700 });
  });
  afterAll(() => run({}, 'gpgconf', ['--homedir', home, '--kill', 'all']));

  it('imports our keys, with a passphrase too, and signs with them', { timeout: 120_000 }, async () => {
    const key = await make({ passphrase: 'open sesame', expiresSeconds: 86_400 });
    await gpg(['--import'], key.privateKeyArmored);
    const { stdout } = await gpg(['--with-colons', '--list-secret-keys', key.fingerprint]);
    expect(stdout).toMatch(/^sec:[^:]*:255:22:/m);
    expect(stdout).toContain(`fpr:::::::::${key.fingerprint}:`);
    expect(stdout).toMatch(/^uid:.*:Test Archive <test@example\.org>:/m);
    const { stdout: signed } = await gpg(
      ['--passphrase', 'open sesame', '--local-user', key.fingerprint, '--clearsign'],
      RELEASE,
    );
    const verified = await verifyClearSigned(signed, [key.publicKeyArmored], { date: new Date() });
    expect(verified).toMatchObject({ text: RELEASE, signers: [{ fingerprint: key.fingerprint }] });
  });

  it('takes our new date of expiry and our revocation certificate', { timeout: 120_000 }, async () => {
    const key = await make({ expiresSeconds: 86_400 });
    const state = async () =>
      /^pub:(.):255:22:[0-9A-F]{16}:\d+:(\d*):/m
        .exec((await gpg(['--with-colons', '--list-keys', key.fingerprint])).stdout)
        ?.slice(1);
    const started = now.getTime() / 1000 - 3_600;
    await gpg(['--import'], key.publicKeyArmored);
    expect(await state()).toEqual(['-', String(Math.floor(started) + 86_400)]);
    const expires = new Date(now.getTime() + 30 * 86_400_000);
    const longer = await extendKey(secret(key), expires, { date: now });
    await gpg(['--import'], longer.publicKeyArmored);
    expect(await state()).toEqual(['-', String(Math.floor(expires.getTime() / 1000))]);
    const { certificateArmored } = await revokeKey(secret(longer), { date: now, reason: 'superseded' });
    await gpg(['--import'], certificateArmored);
    expect((await state())?.[0]).toBe('r');
  });

  it.each([
    ['ed25519 and its passphrase', 'ed25519', 'hunter 2', []],
    ['rsa2048 without one', 'rsa2048', '', []],
    ['a signing subkey whose primary key stays away', 'ed25519', '', ['ed25519']],
  ])('exports to us: %s', { timeout: 120_000 }, async (_what, algorithm, passphrase, subkeys) => {
    const usage = subkeys.length > 0 ? 'cert' : 'sign';
    const mail = `${algorithm}-${subkeys.length}@example.org`;
    await gpg(['--passphrase', passphrase, '--quick-generate-key', `Gpg <${mail}>`, algorithm, usage, '2y']);
    const { stdout: listing } = await gpg(['--with-colons', '--list-keys', mail]);
    const fingerprint = /^fpr:+([0-9A-F]{40}):/m.exec(listing)![1]!;
    for (const kind of subkeys)
      await gpg(['--passphrase', passphrase, '--quick-add-key', fingerprint, kind, 'sign', '1y']);
    const exported = await gpg([
      '--passphrase',
      passphrase,
      '--armor',
      subkeys.length > 0 ? '--export-secret-subkeys' : '--export-secret-keys',
      fingerprint,
    ]);
    const publicKey = (await gpg(['--armor', '--export', fingerprint])).stdout;
    expect(await readKey(exported.stdout)).toMatchObject({
      fingerprint,
      algorithm,
      secret: true,
      locked: passphrase !== '',
    });

    const date = new Date();
    const signed = await clearSign(
      RELEASE,
      [{ key: exported.stdout, passphrase: passphrase === '' ? undefined : passphrase }],
      { date },
    );
    const file = join(world.path, `by-${mail}`);
    await writeFile(file, signed);
    const ring = join(world.path, `ring-${mail}`);
    await writeFile(ring, await exportPublic(exported.stdout, 'binary'));
    expect(verdicts(await gpgv(ring, file))).toEqual(['GOODSIG']);

    const theirs = (
      await gpg(['--passphrase', passphrase, '--local-user', fingerprint, '--armor', '--detach-sign'], RELEASE)
    ).stdout;
    const { signers } = await verifyDetached(RELEASE, theirs, [publicKey], { date: new Date() });
    expect(signers).toMatchObject([{ fingerprint }]);
  });
});

it("verifies Debian's own InRelease with Debian's keyring, and nothing else with it", {
  timeout: 120_000,
}, async () => {
  const inRelease = await fetchRelease(world.context, world.path);
  const keys = [await readFile(ARCHIVE_KEYRING)];
  const { paragraphs, signers } = await readSigned(inRelease, keys, { date: new Date(), file: 'InRelease' });
  expect(paragraphs).toHaveLength(1);
  expect(getField(paragraphs[0]!, 'Codename')).toBe('bookworm');
  expect(getField(paragraphs[0]!, 'SHA256')?.split('\n').length).toBeGreaterThan(100);
  expect(signers.length).toBeGreaterThan(0);
  const file = join(world.path, 'debian-InRelease');
  await writeFile(file, inRelease);
  const result = await gpgv(ARCHIVE_KEYRING, file);
  expect(verdicts(result).filter((verdict) => verdict === 'GOODSIG')).toHaveLength(signers.length);
  const changed = inRelease.toString('utf8').replace('Codename: bookworm', 'Codename: bookwurm');
  await expect(readSigned(changed, keys, { date: new Date() })).rejects.toMatchObject({ code: 'signature-bad' });
});
