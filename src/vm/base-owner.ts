/**
 * Who owns the files of a root file system that is being made, and how programs run as that owner.
 *
 * Secret: root itself, or for others root of a user namespace that is their own user outside (user_namespaces(7), subuid(5));
 * and that the kernel ends what runs, with its mounts, when buildkit ends in whatever way (unshare(1), setpriv(1)).
 */
import { readFile, rm } from 'node:fs/promises';
import { userInfo } from 'node:os';
import type { RunContext } from '../core/context.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { hasProgram, run } from '../core/run.ts';

export type Argv = readonly [program: string, ...args: string[]];

export interface Owner {
  /** The command line that runs `argv` as owner of the root's files. */
  wrap(argv: readonly string[]): Argv;
  /** The same in namespaces of its own: its mounts are seen nowhere else, no process of it outlives buildkit. */
  enclose(argv: readonly string[]): Argv;
}

const NAMESPACES = ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--'];

/** @param rootless for users other than root */
export function ownerOf(rootless: boolean): Owner {
  // a new user namespace forgets the signal, so it comes first
  const user = rootless ? ['unshare', '--user', '--map-root-user', '--map-auto', '--'] : [];
  const wrap = (argv: readonly string[]) => [...user, 'setpriv', '--pdeathsig', 'KILL', '--', ...argv] as never as Argv;
  return { wrap, enclose: (argv) => wrap([...NAMESPACES, ...argv]) };
}

/** @throws UserError `unshare-unavailable` */
export async function chooseOwner(context: RunContext): Promise<Owner> {
  const { uid, username } = userInfo();
  if (uid === 0) return ownerOf(false);
  const subordinate = await readFile('/etc/subuid', 'utf8').catch(() => '');
  const hasRange = subordinate.split('\n').some((line) => [username, String(uid)].includes(line.split(':', 1)[0]!));
  if (!hasRange || !(await hasProgram(context, 'newuidmap'))) {
    throw new UserError(
      'unshare-unavailable',
      'building a base image without root needs a user namespace of your own',
      {
        hint: `as root once: apt-get install uidmap && usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${username}; or build as root and point --state at the result`,
      },
    );
  }
  const owner = ownerOf(true);
  const [program, ...args] = owner.enclose(['true']);
  try {
    await run(context, program, args);
  } catch (cause) {
    context.signal?.throwIfAborted();
    throw new UserError('unshare-unavailable', 'the kernel of this machine lets no user make a namespace', {
      hint: 'as root: sysctl user.max_user_namespaces=15000 (and kernel.unprivileged_userns_clone=1 where there is one); or build as root and point --state at the result',
      cause,
    });
  }
  return owner;
}

/** Removes a folder whose files may belong to ids of a user namespace; also while buildkit is being stopped. */
export async function removeTree({ env }: RunContext, path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
  } catch (error) {
    if (errnoOf(error) !== 'EACCES' && errnoOf(error) !== 'EPERM') throw error;
    const [program, ...args] = ownerOf(true).wrap(['rm', '-rf', '--', path]);
    await run(env === undefined ? {} : { env }, program, args);
  }
}
