/**
 * The machine that a package is made for, in Node's words.
 *
 * Secret: what Node calls Debian's architectures, and which Node.js each suite has (never this machine's own).
 */
import { machine } from 'node:os';
import { UserError } from '../../core/errors.ts';
import { debArch } from '../../deb/arch.ts';
import type { SuiteFacts } from '../../deb/suites.ts';

export interface NodeTarget {
  readonly os: 'linux';
  /** `process.arch`. */
  readonly cpu: string;
  readonly libc: 'glibc';
  /** Node.js of the suite: '18.20.4'. */
  readonly nodeVersion: string;
  /** e_machine of its ELF files. */
  readonly elfMachine: number;
  readonly architecture: string;
}

const CPUS: Readonly<Record<string, readonly [cpu: string, elfMachine: number]>> = {
  amd64: ['x64', 62],
  arm64: ['arm64', 183],
  armel: ['arm', 40],
  armhf: ['arm', 40],
  i386: ['ia32', 3],
  loong64: ['loong64', 258],
  mips64el: ['mips64el', 8],
  mipsel: ['mipsel', 8],
  ppc64el: ['ppc64', 21],
  riscv64: ['riscv64', 243],
  s390x: ['s390x', 22],
};

/** The last that each suite's Packages had; a suite that is not listed has the newest one we know of its major version. */
const NODE_VERSIONS: Readonly<Record<string, string>> = {
  12: '12.22.12',
  18: '18.20.4',
  20: '20.19.2',
  22: '22.21.0',
  24: '24.11.0',
};

/**
 * @throws UserError `unknown-architecture` for one that Node does not run on
 */
export function nodeTarget(suite: SuiteFacts, architecture: string): NodeTarget {
  const known = Object.hasOwn(CPUS, architecture) ? CPUS[architecture] : undefined;
  if (known === undefined) {
    throw new UserError('unknown-architecture', `Node.js does not run on '${architecture}'`, {
      hint: `it runs on ${Object.keys(CPUS).join(', ')}`,
    });
  }
  const [cpu, elfMachine] = known;
  const nodeVersion = NODE_VERSIONS[suite.node] ?? `${suite.node}.0.0`;
  return { os: 'linux', cpu, libc: 'glibc', nodeVersion, elfMachine, architecture };
}

/** This machine, for tools that run while a package is prepared. */
export function hostTarget(): NodeTarget {
  const architecture = debArch(machine());
  const [cpu, elfMachine] = CPUS[architecture]!;
  return { os: 'linux', cpu, libc: 'glibc', nodeVersion: process.versions.node, elfMachine, architecture };
}

/** True where a list as in package.json's `os`, `cpu` and `libc` (also `!name`) takes `value`. */
export function listTakes(list: string | readonly string[] | undefined, value: string): boolean {
  if (list === undefined) return true;
  const words = typeof list === 'string' ? [list] : list;
  if (words.includes(`!${value}`)) return false;
  const wanted = words.filter((word) => !word.startsWith('!'));
  return wanted.length === 0 || wanted.includes(value) || wanted.includes('any');
}
