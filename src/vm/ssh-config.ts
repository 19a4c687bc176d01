/**
 * `ssh NAME.vm.buildkit` from this machine with the user's own ssh, scp, rsync and git: an include for ssh_config(5).
 *
 * Secret: that nothing in the include names a machine, so that it never goes stale: ssh asks buildkit where a machine answers
 * (ProxyCommand) and which host key it has (KnownHostsCommand) when it connects.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { readIfThere, writeFileAtomic } from '../core/files.ts';
import { shellQuote } from '../core/run.ts';
import { readKey, userKey } from './key.ts';
import { machineDir, machineStatus, readMachine } from './machine.ts';

const SUFFIX = '.vm.buildkit';

/**
 * The include.
 * @param program path of buildkit itself
 */
export function sshConfigText(program: string, stateDir: string, keyFile: string): string {
  const percent = (text: string) => text.replaceAll('%', '%%'); // a token of ssh_config(5) begins with it
  const command = (row: string, token: string) =>
    `${percent(shellQuote([program, '--state', stateDir, '-q', 'vm', row]))} ${token}`;
  return `# machines of buildkit: ssh NAME${SUFFIX}
Host *${SUFFIX}
  User root
  IdentityFile "${percent(keyFile)}"
  IdentitiesOnly yes
  IdentityAgent none
  ProxyCommand ${command('dial', '%n')}
  IgnoreUnknown KnownHostsCommand
  KnownHostsCommand ${command('host-key', '%H')}
  UserKnownHostsFile /dev/null
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  CheckHostIP no
  UpdateHostKeys no
`;
}

/** Writes the include to `STATE/vm/ssh_config`. @returns its path */
export async function writeSshConfig(context: Context): Promise<string> {
  const key = await userKey(context);
  const path = join(context.stateDir, 'vm', 'ssh_config');
  const program = join(context.programDir, 'bin', 'buildkit');
  await writeFileAtomic(path, sshConfigText(program, context.stateDir, key.privateKeyFile), { mode: 0o600 });
  return path;
}

/**
 * Names the include at the top of `HOME/.ssh/config`, once.
 * @returns whether it was not there yet
 */
export async function installSshConfig(home: string, include: string): Promise<boolean> {
  const path = join(home, '.ssh', 'config');
  const text = (await readIfThere(path)) ?? '';
  const line = `Include "${include}"`;
  if (text.split('\n').some((one) => one.trim() === line)) return false;
  await mkdir(join(home, '.ssh'), { recursive: true, mode: 0o700 });
  // first: what stands below a Host line would belong to that host
  await writeFileAtomic(path, `${line}\n${text}`, { mode: 0o600 });
  return true;
}

/** `web.vm.buildkit` and `web` are machine `web`. */
function machineOf(hostName: string): string {
  return hostName.endsWith(SUFFIX) ? hostName.slice(0, -SUFFIX.length) : hostName;
}

/** Where the machine's sshd answers now. @throws UserError `vm-unknown`, `vm-not-running` */
export async function dialAddress(context: Context, hostName: string): Promise<{ host: string; port: number }> {
  const status = await machineStatus(context, await readMachine(context, machineOf(hostName)));
  if (status.sshHost !== undefined && status.sshPort !== undefined) {
    return { host: status.sshHost, port: status.sshPort };
  }
  throw new UserError('vm-not-running', `machine '${status.name}' does not run`, {
    hint: `start it: buildkit vm start ${status.name}`,
  });
}

/** The machine's line for known_hosts (sshd(8)). @throws UserError `vm-unknown` */
export async function hostKeyLine(context: Context, hostName: string): Promise<string> {
  const { name } = await readMachine(context, machineOf(hostName));
  const key = await readKey(join(machineDir(context, name), 'hostkey'));
  return `${hostName} ${key.publicKey.split(' ').slice(0, 2).join(' ')}`;
}
