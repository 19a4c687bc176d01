/** `buildkit key`: the store of signing keys. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import type { KeyAlgorithm, KeyInfo, RevocationReason } from '../deb/openpgp.ts';
import { type Cli, type CommandContext, table } from './command.ts';
import { addPassphraseOptions, type PassphraseOptions, passphraseSource, readNewPassphrase } from './passphrase.ts';
import { openRepo, type Place } from './repo-place.ts';

interface GenerateOptions extends PassphraseOptions {
  readonly name: string;
  readonly email: string;
  readonly algorithm: KeyAlgorithm;
  readonly expires: string;
  readonly protect?: boolean;
}

export function addKeyCommands(program: Command, cli: Cli): void {
  const key = program.command('key').description('signing keys of repositories');
  const generate = key
    .command('generate')
    .description('make a signing key; none is ever replaced')
    .requiredOption('--name <name>', 'who signs: "Example Archive"')
    .requiredOption('--email <mail>', 'mail address in the user id')
    .addOption(
      new Option('--algorithm <algorithm>', 'rsa4096 for clients that do not know Ed25519')
        .choices(['ed25519', 'rsa4096'])
        .default('ed25519'),
    )
    .option('--expires <length>', 'how long it lives: 2y, 18m, 90d or never', '2y')
    .option('--protect', 'put it under a passphrase');
  addPassphraseOptions(generate).action(
    cli.action(async (cx, options: GenerateOptions) => {
      const { KeyStore, parseLifetime } = await import('../repo/keys.ts');
      const made = await new KeyStore(cx).generate({
        name: options.name,
        email: options.email,
        algorithm: options.algorithm,
        expiresSeconds: parseLifetime(options.expires),
        passphrase: await readNewPassphrase(cx, options),
      });
      return { data: keyData(cx, made), text: made.fingerprint };
    }),
  );
  key
    .command('list')
    .description('list the keys, oldest first')
    .action(
      cli.action(async (cx) => {
        const { KeyStore } = await import('../repo/keys.ts');
        const keys = (await new KeyStore(cx).list()).map((found) => keyData(cx, found));
        return {
          data: keys,
          text: table(keys.map((row) => [row.fingerprint, row.algorithm, row.state, row.userIds.join(', ')])),
        };
      }),
    );
  key
    .command('status')
    .description('which keys sign a repository, which will go and when')
    .option('--repo <dir>', 'the repository; default: repo.dir of buildkit.yaml')
    .action(
      cli.action(async (cx, options: Place) => {
        using repo = await openRepo(cx, options);
        const keys = await repo.keyStatus();
        const rows = keys.map((one) => [
          one.fingerprint,
          one.until === undefined ? one.role : `${one.role} ${one.until.slice(0, 10)}`,
          one.daysLeft === undefined ? 'never expires' : `expires in ${one.daysLeft} days`,
        ]);
        return { data: keys, text: table(rows) };
      }),
    );
  key
    .command('export [key]')
    .description('print the public key (binary without --armor)')
    .option('--armor', 'as text')
    .action(
      cli.action(async (cx, wanted: string | undefined, options: { armor?: boolean }) => {
        const { KeyStore } = await import('../repo/keys.ts');
        const store = new KeyStore(cx);
        const { fingerprint } = await store.find(wanted);
        if (options.armor || cx.json) {
          const armored = await store.exportArmored(fingerprint);
          return { data: { fingerprint, armored }, text: armored };
        }
        cx.writeOut(await store.exportBinary(fingerprint));
        return undefined;
      }),
    );
  key
    .command('import <file>')
    .description('take a secret key as gpg --export-secret-keys writes it')
    .action(
      cli.action(async (cx, file: string) => {
        const { KeyStore } = await import('../repo/keys.ts');
        const taken = await new KeyStore(cx).import(await readFile(resolve(cx.cwd, file)));
        return { data: keyData(cx, taken), text: taken.fingerprint };
      }),
    );
  const extend = key
    .command('extend [key]')
    .description('give a key another end of its life; what it signed stays good');
  addPassphraseOptions(extend.requiredOption('--expires <length>', 'from now: 2y, 18m, 90d or never')).action(
    cli.action(async (cx, wanted: string | undefined, options: PassphraseOptions & { expires: string }) => {
      const { KeyStore, parseLifetime } = await import('../repo/keys.ts');
      const store = new KeyStore(cx);
      const { fingerprint } = await store.find(wanted);
      const passphrase = passphraseSource(cx, options);
      const extended = keyData(cx, await store.extend(fingerprint, parseLifetime(options.expires), passphrase));
      return { data: extended, text: `${fingerprint} ${extended.state}` };
    }),
  );
  const revoke = key
    .command('revoke [key]')
    .description('print the certificate that revokes a key where it is imported');
  addPassphraseOptions(
    revoke.addOption(
      new Option('--reason <reason>', 'why')
        .choices(['unspecified', 'superseded', 'compromised', 'retired'])
        .default('unspecified'),
    ),
  ).action(
    cli.action(async (cx, wanted: string | undefined, options: PassphraseOptions & { reason: RevocationReason }) => {
      const { KeyStore } = await import('../repo/keys.ts');
      const store = new KeyStore(cx);
      const { fingerprint } = await store.find(wanted);
      const made = await store.revocation(fingerprint, options.reason, passphraseSource(cx, options));
      return { data: made, text: made.certificateArmored };
    }),
  );
}

function keyData(cx: CommandContext, key: KeyInfo) {
  const { fingerprint, userIds, algorithm, created, expires, revoked, locked } = key;
  const expired = expires !== undefined && expires <= cx.now();
  const life =
    expires === undefined
      ? 'never expires'
      : `${expired ? 'expired' : 'expires'} ${expires.toISOString().slice(0, 10)}`;
  return {
    fingerprint,
    userIds,
    algorithm,
    created: created.toISOString(),
    expires: expires?.toISOString() ?? null,
    revoked,
    locked,
    state: [revoked ? 'revoked' : life, ...(locked ? ['passphrase'] : [])].join(', '),
  };
}
