/**
 * Who signs Release: keys of our store, keys of a gpg agent, any command, or somebody elsewhere.
 *
 * Secret: how each of them is asked. A key of a repository is named by its fingerprint (our store), `gpg:FINGERPRINT` (gpg and
 * its agent: smart cards, keys that never leave it) or `command:PROGRAM ARGUMENTS` (an HSM, a key service). The command is
 * called with one more argument, `clearsign`, `detach` or `export`, gets the text on stdin and prints the armored answer.
 * Whatever comes back is checked before it is published.
 */
import { UserError } from '../core/errors.ts';
import type { KeyInfo } from '../deb/openpgp.ts';
import type { SignedRelease } from './generation.ts';
import type { RepoHandle } from './handle.ts';
import { checkUsable, type PassphraseSource } from './keys.ts';

/** Public parts of the keys that sign, and what signs with them. */
export interface Signing {
  readonly keys: readonly KeyInfo[];
  /** All of them as one armored block, and as apt takes them from a .gpg file. */
  readonly armored: string;
  readonly binary: Uint8Array;
  /** @throws UserError, ToolError; what is returned was checked */
  sign(release: string): Promise<SignedRelease>;
}

type Backend = 'store' | 'gpg' | 'command';

interface KeyReference {
  readonly backend: Backend;
  readonly name: string;
}

function parseKeyReference(text: string): KeyReference {
  const match = /^(gpg|command):(.+)$/s.exec(text);
  return match ? { backend: match[1] as Backend, name: match[2]!.trim() } : { backend: 'store', name: text };
}

/** The full name of a key that a user means. @throws UserError `no-key`, `key-ambiguous` */
export async function resolveKey(repo: RepoHandle, wanted: string | undefined): Promise<string> {
  const reference = wanted === undefined ? undefined : parseKeyReference(wanted);
  if (reference?.backend === 'command') return wanted!;
  if (reference?.backend === 'gpg') {
    const armored = await gpgExport(repo, reference.name);
    const { readKey } = await import('../deb/openpgp.ts');
    return `gpg:${(await readKey(armored)).fingerprint}`;
  }
  return (await repo.keys.find(wanted)).fingerprint;
}

/**
 * Opens the keys of a repository for their public parts alone.
 * @throws UserError when one is not there, expired, revoked, or of a kind that clients refuse
 */
export async function openSigning(
  repo: RepoHandle,
  names: readonly string[],
  passphrase?: PassphraseSource,
): Promise<Signing> {
  const references = names.map(parseKeyReference);
  const backend = references[0]?.backend ?? 'store';
  if (references.some((reference) => reference.backend !== backend)) {
    throw new UserError('key-backends', 'keys of different kinds cannot sign one Release together', {
      hint: 'bring them into one store: buildkit key import, or gpg --import',
    });
  }
  const { exportPublic, readKey } = await import('../deb/openpgp.ts');
  const plain = references.map((reference) => reference.name);
  const exported = await Promise.all(plain.map((name) => exportKey(repo, backend, name)));
  const keys = await Promise.all(exported.map((key) => readKey(key)));
  for (const key of keys) checkUsable(key, repo.context.now());
  const binary = Buffer.concat(await Promise.all(exported.map((key) => exportPublic(key, 'binary'))));
  const sign = async (release: string) => {
    const signed = await signWith(repo, backend, plain, release, passphrase);
    if (backend !== 'store') await checkSigned(repo, signed, binary);
    return signed;
  };
  return { keys, armored: await exportPublic(binary, 'armored'), binary, sign };
}

function exportKey(repo: RepoHandle, backend: Backend, name: string): Promise<string> {
  if (backend === 'store') return repo.keys.exportArmored(name);
  return backend === 'gpg' ? gpgExport(repo, name) : askCommand(repo, name, 'export', '');
}

async function signWith(
  repo: RepoHandle,
  backend: Backend,
  names: readonly string[],
  release: string,
  passphrase: PassphraseSource | undefined,
): Promise<SignedRelease> {
  if (backend === 'store') return signWithStore(repo, names, release, passphrase);
  if (backend === 'command' && names.length > 1) {
    throw new UserError('key-backends', 'one command signs at a time', { hint: 'let the command sign with all keys' });
  }
  const ask = (how: 'clearsign' | 'detach') =>
    backend === 'gpg' ? gpgSign(repo, names, how, release) : askCommand(repo, names[0]!, how, release);
  return { release, inRelease: await ask('clearsign'), releaseGpg: await ask('detach') };
}

async function signWithStore(
  repo: RepoHandle,
  names: readonly string[],
  release: string,
  passphrase: PassphraseSource | undefined,
): Promise<SignedRelease> {
  const { clearSign, detachSign } = await import('../deb/openpgp.ts');
  const now = repo.context.now();
  const signers = await repo.keys.signers(names, now, passphrase);
  // a signature from the future is refused by gpgv, so it is dated by the clock, also where Release runs ahead of it
  const date = new Date(Math.floor(now.getTime() / 1000) * 1000);
  return {
    release,
    inRelease: await clearSign(release, signers, { date }),
    releaseGpg: await detachSign(release, signers, { date }),
  };
}

async function gpgExport(repo: RepoHandle, name: string): Promise<string> {
  const { run } = await import('../core/run.ts');
  const { stdout } = await run(repo.context, 'gpg', ['--batch', '--armor', '--export', '--', name]);
  if (stdout !== '') return stdout;
  throw new UserError('no-key', `gpg has no key '${name}'`, { hint: 'see: gpg --list-secret-keys' });
}

async function gpgSign(
  repo: RepoHandle,
  names: readonly string[],
  how: 'clearsign' | 'detach',
  text: string,
): Promise<string> {
  const { run } = await import('../core/run.ts');
  const users = names.flatMap((name) => ['--local-user', name]);
  const verb = how === 'clearsign' ? ['--clearsign'] : ['--armor', '--detach-sign'];
  const args = ['--batch', '--yes', '--digest-algo', 'SHA512', ...users, ...verb];
  return (await run(repo.context, 'gpg', args, { input: text })).stdout;
}

async function askCommand(repo: RepoHandle, command: string, how: string, text: string): Promise<string> {
  const { run } = await import('../core/run.ts');
  const [program = '', ...args] = command.split(/\s+/);
  return (await run(repo.context, program, [...args, how], { input: text })).stdout;
}

/** @throws UserError `signature-*` when the answer is not a good signature of exactly this text by these keys */
export async function checkSigned(repo: RepoHandle, signed: SignedRelease, keyring: Uint8Array): Promise<void> {
  const { verifyClearSigned, verifyDetached } = await import('../deb/openpgp.ts');
  // signatures made by programs are dated by the clock of the machine
  const date = new Date(repo.context.now().getTime() + 1000);
  const { text } = await verifyClearSigned(signed.inRelease, [keyring], { date, file: 'InRelease' });
  if (text !== signed.release) {
    throw new UserError('signature-other-text', 'InRelease says something else than Release', { file: 'InRelease' });
  }
  await verifyDetached(signed.release, signed.releaseGpg, [keyring], { date, file: 'Release.gpg' });
}
