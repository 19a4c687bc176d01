/**
 * How a program runs inside of a build root's clone.
 *
 * Secret: namespaces of its own for mounts, processes, IPC, host name and (unless it may) network, so that the kernel takes
 * all of it away with the first process: no mount is ever seen outside, and kill -9 of buildkit ends what runs inside
 * (unshare(1), setpriv(1), mount(8), user_namespaces(7), overlayfs of the kernel's documentation).
 */
import type { RunContext } from '../../core/context.ts';
import { ToolError } from '../../core/errors.ts';
import { type RunResult, run } from '../../core/run.ts';

/** Who owns the files of a root: root itself, or root of a user namespace whose other ids newuidmap gives. */
export type Rights = 'root' | 'user';

/** The user that builds: no name of Debian's, and above the ids that packages and people get. */
export const BUILDER = { name: 'builder', id: 29_999 } as const;

export interface Entry {
  readonly rights: Rights;
  /** Where the relative paths below start. */
  readonly rootsDir: string;
  /** Folder of the clone: upper, work, root, build. No blanks, commas or colons. */
  readonly clone: string;
  /** Folders below the clone's own, the topmost first; none: `root` holds everything. */
  readonly lowers: readonly string[];
}

export interface Inside {
  /** A POSIX shell text; `args` are its parameters. */
  readonly script: string;
  readonly args?: readonly string[];
  /** Default 'builder': without any capability, and none to be had. */
  readonly user?: 'root' | 'builder';
  /** Default false: only a loopback interface. */
  readonly network?: boolean;
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Default /build. */
  readonly cwd?: string;
  /** Gets what is printed; without it, stdout is returned. */
  readonly logFile?: string | undefined;
  readonly timeoutMs?: number | undefined;
}

/** The same for every build, so that none sees who started it. */
const FIXED_ENV: Readonly<Record<string, string>> = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/nonexistent',
  USER: BUILDER.name,
  LOGNAME: BUILDER.name,
  SHELL: '/bin/sh',
  TERM: 'dumb',
  LANG: 'C.UTF-8',
  LC_ALL: 'C.UTF-8',
  TZ: 'UTC',
  DEBIAN_FRONTEND: 'noninteractive',
};

/** Exit status that means: the clone could not be set up. */
const NO_ENTRY = 97;

/** Runs as the first process of the namespaces, outside of the root still. */
const SETUP = `
set -eu
umask 022
PATH=$PATH:/usr/sbin:/sbin # chroot: a user's has them not
log=$1 clone=$2 lowers=$3 network=$4 rights=$5 dir=$6; shift 6
[ -z "$log" ] || exec >>"$log" 2>&1
trap 'exit ${NO_ENTRY}' EXIT
root=$clone/root
if [ -n "$lowers" ]; then
  options="lowerdir=$lowers,upperdir=$clone/upper,workdir=$clone/work"
  [ "$rights" = root ] || options="$options,userxattr"
  mount -t overlay overlay -o "$options" "$root"
fi
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys" 2>/dev/null || :
mount -t tmpfs -o mode=755,nosuid dev "$root/dev"
for node in null zero full random urandom tty; do
  [ -e "/dev/$node" ] || continue
  : >"$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
mount --bind "$clone/build" "$root/build"
hostname buildkit
if [ "$network" = yes ]; then
  for file in resolv.conf hosts; do
    [ ! -e "/etc/$file" ] || mount --bind "/etc/$file" "$root/etc/$file"
  done
else
  ip link set lo up
fi
trap - EXIT
trap 'exit 143' TERM INT HUP
# not exec: the first process has to take in orphans
chroot "$root" env -i -C "$dir" "$@" &
wait $!
`;

/** The command line of unshare that makes the namespaces. Pure. */
export function enterArgs(entry: Entry, inside: Inside): string[] {
  const { rights, clone, lowers } = entry;
  const { network = false, user = 'builder' } = inside;
  const env = { ...FIXED_ENV, ...inside.env };
  const drop =
    user === 'root'
      ? []
      : [
          ...['setpriv', `--reuid=${BUILDER.id}`, `--regid=${BUILDER.id}`, '--clear-groups', '--no-new-privs'],
          ...['--inh-caps=-all', '--bounding-set=-all', '--'],
        ];
  return [
    ...endsWithUs(rights),
    ...['unshare', '--mount', '--pid', '--ipc', '--uts', ...(network ? [] : ['--net']), '--fork', '--kill-child'],
    ...['sh', '-c', 'eval "$BUILDKIT_ENTER"', 'buildkit-root', inside.logFile ?? '', clone, lowers.join(':')],
    ...[network ? 'yes' : 'no', rights, inside.cwd ?? '/build'],
    ...Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`])),
    ...drop,
    ...['sh', '-euc', `umask 022; ${inside.script}`, 'buildkit-build', ...(inside.args ?? [])],
  ];
}

/** `argv` as owner of a root's files, ended by the kernel when buildkit ends. */
export function asOwner(rights: Rights, argv: readonly string[]): string[] {
  return [...endsWithUs(rights), ...argv];
}

function endsWithUs(rights: Rights): string[] {
  // a new user namespace forgets the signal, so it comes first
  const owner = rights === 'root' ? [] : ['unshare', '--user', '--map-root-user', '--map-auto', '--'];
  return [...owner, 'setpriv', '--pdeathsig', 'KILL', '--'];
}

/**
 * @throws ToolError `root-entry` when the clone cannot be set up; `tool-failed`, `tool-timeout`
 */
export async function runInside(context: RunContext, entry: Entry, inside: Inside): Promise<RunResult> {
  const [program = '', ...args] = enterArgs(entry, inside);
  const { timeoutMs } = inside;
  try {
    return await run(context, program, args, {
      cwd: entry.rootsDir,
      // not as an argument: the command that errors and -v show stays short
      env: { BUILDKIT_ENTER: SETUP },
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    });
  } catch (error) {
    if (!(error instanceof ToolError)) throw error;
    const { code, message, command, stderrTail, status, cause } = error;
    const failure = { command, stderrTail, status, cause, logFile: inside.logFile };
    if (status !== NO_ENTRY) throw new ToolError(code, message, failure);
    throw new ToolError('root-entry', 'the build root cannot be entered', {
      ...failure,
      hint: 'mounting must be allowed: run it as root, or where user namespaces are; or take --isolation host',
    });
  }
}
