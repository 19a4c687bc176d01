/** `buildkit repo`: changing keys, the keyring package, signatures made elsewhere. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Cli } from './command.ts';
import { openRepo, type Place, type Row } from './repo-place.ts';

interface AttachOptions extends Place {
  readonly inrelease: string;
  readonly releaseGpg: string;
  readonly publicKey: string;
}

export function addKeyPlans(row: Row, cli: Cli): void {
  row('rotate-key <key>', 'from the next publish on this key signs too, and after a while alone')
    .option('--overlap <days>', 'how long old and new sign together', '90')
    .action(
      cli.action(async (cx, key: string, options: Place & { readonly overlap: string }) => {
        using repo = await openRepo(cx, options);
        const { rotation } = await repo.rotateKey(key, Number(options.overlap));
        return {
          data: rotation,
          text: `from ${rotation?.at.slice(0, 10)} on ${rotation?.keys.join(', ')} signs alone`,
        };
      }),
    );

  row('keyring-deb', 'build the package that brings the public keys to clients, also when they change')
    .option('--out <dir>', 'where to write it', '.')
    .action(
      cli.action(async (cx, options: Place & { readonly out: string }) => {
        using repo = await openRepo(cx, options);
        const { path, name, version, sha256 } = await repo.keyringDeb(resolve(cx.cwd, options.out));
        return { data: { path, name, version, sha256 }, text: path };
      }),
    );

  row('attach-signature <suite>', 'publish what was signed elsewhere after repo publish --unsigned')
    .requiredOption('--inrelease <file>', 'the clear-signed text')
    .requiredOption('--release-gpg <file>', 'the detached signature, armored')
    .requiredOption('--public-key <file>', 'what clients check them with')
    .action(
      cli.action(async (cx, suite: string, options: AttachOptions) => {
        using repo = await openRepo(cx, options);
        const read = (path: string) => readFile(resolve(cx.cwd, path));
        const inRelease = (await read(options.inrelease)).toString('utf8');
        const releaseGpg = (await read(options.releaseGpg)).toString('utf8');
        const generation = await repo.attachSignature(suite, {
          inRelease,
          releaseGpg,
          publicKeys: await read(options.publicKey),
        });
        return { data: { suite, generation }, text: `published ${suite}: generation ${generation}` };
      }),
    );
}
