/** `buildkit vm define|clone`: machines made of a description, or of another machine. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { Cli } from './command.ts';

interface CloneFlags {
  readonly name?: string;
  readonly snapshot?: string;
  readonly directory?: string;
}

export function addVmMakeCommands(vm: Command, cli: Cli): void {
  vm.command('define <file>')
    .description('make a machine that a YAML or JSON file describes (docs: buildkit vm define --help)')
    .addHelpText('after', KEYS)
    .action(
      cli.action(async (cx, file: string) => {
        const { suite, vm: config } = await cx.config();
        const { defineVm, readDefinition } = await import('../vm/define.ts');
        const { memory, cpus, accel } = config;
        const plan = await readDefinition(resolve(cx.cwd, file));
        const made = await defineVm(cx, plan, { base: suite, memory, cpus, accel });
        return { data: made, text: `defined: ${made.name} (base ${made.base.id})` };
      }),
    );
  vm.command('clone <source> <name-or-number>')
    .description(
      'make a machine with the disk of another one and a name, machine-id, host key, card and ports of its own',
    )
    .option('--name <name>', 'of a machine with a number')
    .option(
      '--snapshot <name>',
      'a kept state of its disk (the source may run); default: the disk of one that does not run',
    )
    .option('-o, --directory <dir>', 'make its folder there (DIR/NAME) instead of in the state folder')
    .action(
      cli.action(async (cx, source: string, target: string, flags: CloneFlags) => {
        const { cloneVm } = await import('../vm/clone.ts');
        const directory = flags.directory && resolve(cx.cwd, flags.directory);
        const made = await cloneVm(cx, source, target, { ...flags, directory });
        return { data: made, text: `cloned: ${made.name} from ${source} (base ${made.base.id})` };
      }),
    );
}

const KEYS = `
Keys of the file (all may be left out but one of name and number):
  name, number, directory, raw, memory, cpus, accel   as vm create takes them
  base: ID or suite                                   or, instead of it,
  image:                                              a base is made of it
    url: URL | file: FILE or DEVICE (used in place, never written to)
    digests: {md5, sha256, sha512}                    of what is downloaded
    image-digests: {md5, sha256, sha512}              after unpacking
    signature: KEYRING, name: ID, suite: CODENAME
  disk-interface: virtio|scsi|ide, snapshot: true, vnc: ADDR:N, graphics: true
  forward: [tcp:13480:80], netdev: ['user,id=net9'], share: [DIR:TAG:rw]
  ssh: {port, key, user, host}                        a free port when none is given
  exec-on-boot, qemu-options, kernel-parameters: [...]`;
