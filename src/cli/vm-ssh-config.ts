/** `buildkit vm ssh-config`, and the two rows that ssh itself calls by it. */
import { connect } from 'node:net';
import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';
import { RemoteError, UserError } from '../core/errors.ts';
import type { Cli } from './command.ts';

/** Adds `ssh-config`, `dial` and `host-key` to the `vm` command. */
export function addVmSshConfigCommands(vm: Command, cli: Cli): void {
  vm.command('ssh-config')
    .description('let ssh, scp, rsync and git reach machines as NAME.vm.buildkit')
    .option('--install', 'include it in ~/.ssh/config', false)
    .action(
      cli.action(async (cx, { install }: { install: boolean }) => {
        const { installSshConfig, writeSshConfig } = await import('../vm/ssh-config.ts');
        const include = await writeSshConfig(cx);
        const line = `Include "${include}"`;
        if (!install) return { data: { include }, text: `written; put this first in ~/.ssh/config: ${line}` };
        const home = cx.env.HOME;
        if (!home)
          throw new UserError('no-home', 'HOME is not set', { hint: `put this into your ssh_config: ${line}` });
        const added = await installSshConfig(home, include);
        const text = added ? 'ready: ssh NAME.vm.buildkit' : 'it is there already: ssh NAME.vm.buildkit';
        return { data: { include, added }, text };
      }),
    );
  vm.command('dial <host>', { hidden: true })
    .description('join standard input and output to the sshd of a machine (ProxyCommand)')
    .action(
      cli.action(async (cx, hostName: string) => {
        const { dialAddress } = await import('../vm/ssh-config.ts');
        const { host, port } = await dialAddress(cx, hostName);
        const socket = connect({ host, port, noDelay: true });
        try {
          await Promise.all([pipeline(process.stdin, socket), pipeline(socket, process.stdout, { end: false })]);
        } catch (cause) {
          throw new RemoteError('vm-unreachable', `cannot reach the machine: ${(cause as Error).message}`, {
            url: `ssh://${host}:${port}`,
            cause,
          });
        }
        return undefined;
      }),
    );
  vm.command('host-key <host>', { hidden: true })
    .description('the host key of a machine, as a line of known_hosts (KnownHostsCommand)')
    .action(
      cli.action(async (cx, hostName: string) => {
        const { hostKeyLine } = await import('../vm/ssh-config.ts');
        const line = await hostKeyLine(cx, hostName);
        return { data: line, text: line };
      }),
    );
}
