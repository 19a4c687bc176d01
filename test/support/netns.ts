/** Network namespaces that a test makes and that vanish with all that is in them. Needs root. */
import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { type RunOptions, type RunResult, run } from '../../src/core/run.ts';

export interface Namespace extends AsyncDisposable {
  readonly name: string;
  run(program: string, args: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** A POSIX shell script inside. */
  sh(script: string, options?: RunOptions): Promise<RunResult>;
  /** Interfaces, rules and switches, to be compared byte for byte. */
  snapshot(): Promise<string>;
}

/** A namespace with a name of its own; processes left in it are ended on dispose. */
export async function makeNamespace(label: string): Promise<Namespace> {
  const name = `bk-${label}-${randomBytes(4).toString('hex')}`;
  await run({}, 'ip', ['netns', 'add', name]);
  const inside: Namespace['run'] = (program, args, options) =>
    run({}, 'ip', ['netns', 'exec', name, program, ...args], options);
  await inside('ip', ['link', 'set', 'lo', 'up']);
  return {
    name,
    run: inside,
    sh: (script, options) => inside('sh', ['-eu', '-c', script], options),
    snapshot: () => settled(async () => (await inside('sh', ['-eu', '-c', SNAPSHOT])).stdout),
    async [Symbol.asyncDispose]() {
      const { stdout } = await run({}, 'ip', ['netns', 'pids', name]);
      for (const pid of stdout.split('\n').filter((line) => line !== '')) {
        try {
          process.kill(Number(pid), 'SIGKILL');
        } catch {
          // it ended by itself
        }
      }
      await run({}, 'ip', ['netns', 'delete', name]);
    },
  };
}

/** The kernel tells of a lost carrier up to a second later: waits until nothing changes any more. */
async function settled(look: () => Promise<string>): Promise<string> {
  let last = await look();
  for (let equal = 0, tries = 0; equal < 3 && tries < 40; tries += 1) {
    await sleep(300);
    const now = await look();
    equal = now === last ? equal + 1 : 0;
    last = now;
  }
  return last;
}

// timers of bridges run on by themselves; a bridge that was emptied keeps the limit of its last port
const SNAPSHOT = `ip -d link | sed 's/_timer *[0-9.]*//g; s/ tso_max_size [0-9]*//'
ip -4 address | grep -v valid_lft
ip rule
ip -4 route show table all
nft list ruleset
cd /proc/sys/net/ipv4
cat ip_forward
grep -r . conf | sort`;

/** Joins two namespaces by a cable: `a` gets `aName` with `aAddress`, and so on; an absent address leaves the end bare. */
export async function connect(
  a: { readonly at: Namespace; readonly name: string; readonly address?: string; readonly mac?: string },
  b: { readonly at: Namespace; readonly name: string; readonly address?: string; readonly mac?: string },
): Promise<void> {
  await a.at.run('ip', ['link', 'add', a.name, 'type', 'veth', 'peer', 'name', b.name, 'netns', b.at.name]);
  for (const { at, name, address, mac } of [a, b]) {
    if (mac !== undefined) await at.run('ip', ['link', 'set', 'dev', name, 'address', mac]);
    if (address !== undefined) await at.run('ip', ['address', 'add', address, 'dev', name]);
    await at.run('ip', ['link', 'set', 'dev', name, 'up']);
  }
}

/** Command lines of processes that mention `text`. */
export async function processesWith(text: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    try {
      const line = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).replaceAll('\0', ' ').trim();
      if (line.includes(text)) found.push(line);
    } catch {
      // it ended meanwhile
    }
  }
  return found;
}
