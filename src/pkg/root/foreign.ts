/**
 * Whether programs of an architecture run on this machine: its own, or by an emulator that the kernel starts for them.
 *
 * Secret: binfmt_misc's folder and the names that Debian's qemu-user-static has there.
 */
import { readFile } from 'node:fs/promises';
import { machine } from 'node:os';
import { UserError } from '../../core/errors.ts';
import { debArch } from '../../deb/arch.ts';

const EMULATED: Readonly<Record<string, string>> = { arm64: 'aarch64', armhf: 'arm', armel: 'arm', ppc64el: 'ppc64le' };

/** @throws UserError `foreign-architecture` */
export async function refuseForeign(architecture: string, folder = '/proc/sys/fs/binfmt_misc'): Promise<void> {
  if (isOwn(architecture)) return;
  const entry = await readFile(`${folder}/qemu-${EMULATED[architecture] ?? architecture}`, 'utf8').catch(() => '');
  if (!entry.startsWith('enabled')) throw foreign(architecture);
}

/** Without a root, even an emulator has no libraries of that architecture. @throws UserError `foreign-architecture` */
export function refuseForeignHere(architecture: string | undefined): void {
  if (architecture !== undefined && !isOwn(architecture)) throw foreign(architecture);
}

function isOwn(architecture: string): boolean {
  const own = debArch(machine());
  return architecture === own || (own === 'amd64' && architecture === 'i386');
}

function foreign(architecture: string): UserError {
  const what = `a source for ${architecture} cannot be built here: this machine is ${debArch(machine())}`;
  return new UserError('foreign-architecture', what, {
    hint: 'apt-get install qemu-user-static binfmt-support, and --isolation root; or build on such a machine; wheels and packages without sources need neither',
  });
}
