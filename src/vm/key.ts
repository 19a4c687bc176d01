/** Key pairs of machines: the user's, made on first use, and a host key for each machine (ssh-keygen(1)). */
import { mkdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { lock } from '../core/db.ts';
import { UserError } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import { run } from '../core/run.ts';

export interface SshKey {
  readonly privateKeyFile: string;
  readonly publicKeyFile: string;
  /** `ssh-ed25519 AAAA... comment` */
  readonly publicKey: string;
  /** OpenSSH format. */
  readonly privateKey: string;
}

/** The key that logs in to every machine of this state folder; made on first use, never replaced. */
export async function userKey(context: Context): Promise<SshKey> {
  const folder = join(context.stateDir, 'vm', 'key');
  const file = join(folder, 'id_ed25519');
  if (!(await exists(`${file}.pub`))) {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    using _lock = await lock(join(folder, '.lock'), { what: 'the key of the machines', waitMs: 30_000 });
    if (!(await exists(`${file}.pub`))) {
      await makeKey(context, file, 'buildkit');
      context.log.info(`key pair for machines made: ${file}`);
    }
  }
  return readKey(file);
}

/** A new key pair at `file` and `file.pub`; the public half last. */
export async function makeKey(context: Context, file: string, comment: string): Promise<SshKey> {
  const aside = `${file}.new`;
  await rm(aside, { force: true });
  await run(context, 'ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', comment, '-f', aside]);
  await rename(aside, file);
  await rename(`${aside}.pub`, `${file}.pub`);
  return readKey(file);
}

export async function readKey(file: string): Promise<SshKey> {
  return {
    privateKeyFile: file,
    publicKeyFile: `${file}.pub`,
    privateKey: await readFile(file, 'utf8'),
    publicKey: (await readFile(`${file}.pub`, 'utf8')).trim(),
  };
}

/** A private key of the user's own; its public half lies beside it or is computed. @throws UserError `ssh-key` */
export async function foreignKey(context: Context, file: string): Promise<SshKey> {
  const privateKey = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new UserError('ssh-key', `the key '${file}' cannot be read`, { file, cause });
  });
  const { stdout } = await run(context, 'ssh-keygen', ['-y', '-P', '', '-f', file]);
  return { privateKeyFile: file, publicKeyFile: `${file}.pub`, privateKey, publicKey: stdout.trim() };
}
