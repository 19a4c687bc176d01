/** `buildkit vm snapshot|export|scripts`: the disk of a machine, and what is made from a machine. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { UsageError } from '../core/errors.ts';
import { type Cli, table } from './command.ts';

export function addVmDiskCommands(vm: Command, cli: Cli): void {
  const snapshot = vm.command('snapshot').description('states of the disk of a machine that does not run');
  for (const verb of ['create', 'restore', 'delete'] as const) {
    const done = { create: 'kept as', restore: 'went back to', delete: 'forgot' }[verb];
    snapshot
      .command(`${verb} <name> <snapshot>`)
      .description({ create: 'keep the state', restore: 'go back to a state', delete: 'forget a state' }[verb])
      .action(
        cli.action(async (cx, name: string, label: string) => {
          const { changeSnapshot } = await import('../vm/disk-care.ts');
          await changeSnapshot(cx, name, verb, label);
          return { data: { name, snapshot: label, verb }, text: `${name}: ${done} ${label}` };
        }),
      );
  }
  snapshot
    .command('list <name>')
    .description('states that are kept, oldest first')
    .action(
      cli.action(async (cx, name: string) => {
        const { listSnapshots } = await import('../vm/disk-care.ts');
        const found = await listSnapshots(cx, name);
        return { data: found, text: table(found.map((one) => [one.name, one.created])) };
      }),
    );
  addExport(vm, cli);
  vm.command('scripts <name>')
    .description('write NAME-ctl, NAME-sendfile, NAME-getfile (REMOTE LOCAL) and NAME-runscript')
    .requiredOption('--bin <dir>', 'folder for them')
    .action(
      cli.action(async (cx, name: string, { bin }: { bin: string }) => {
        const { writeScripts } = await import('../vm/scripts.ts');
        const paths = await writeScripts(cx, name, resolve(cx.cwd, bin));
        return { data: paths, text: paths.join('\n') };
      }),
    );
}

interface ExportFlags {
  readonly raw?: string;
  readonly qcow2?: string;
  readonly libvirt?: string;
  readonly ami?: string;
  readonly bucket?: string;
}

function addExport(vm: Command, cli: Cli): void {
  vm.command('export <name>')
    .description('write the disk of a machine, or its definition; never over something that is there')
    .option('--raw <file>', 'the whole disk, raw')
    .option('--qcow2 <file>', 'the whole disk, without a base below it')
    .option('--libvirt <file>', "libvirt's domain XML, for virsh define")
    .option('--ami <file>', 'a raw image that boots on EC2, and beside it the requests that make an AMI of it')
    .option('--bucket <name>', 'of S3, for the requests of --ami')
    .addHelpText('after', AMI_HELP)
    .action(
      cli.action(async (cx, name: string, flags: ExportFlags) => {
        const { exportDisk, exportLibvirt } = await import('../vm/disk-care.ts');
        const { raw, qcow2, libvirt, ami, bucket } = flags;
        const at = (file: string) => resolve(cx.cwd, file);
        const files = [raw, qcow2, libvirt].flatMap((file) => (file === undefined ? [] : [at(file)]));
        if (files.length === 0 && !ami) {
          throw new UsageError('name what to write: --raw, --qcow2, --libvirt or --ami FILE');
        }
        if (raw) await exportDisk(cx, name, 'raw', at(raw));
        if (qcow2) await exportDisk(cx, name, 'qcow2', at(qcow2));
        if (libvirt) await exportLibvirt(cx, name, at(libvirt));
        if (ami) {
          const { exportAmi } = await import('../vm/ami.ts');
          files.push(...Object.values(await exportAmi(cx, name, at(ami), { bucket })));
        }
        return { data: { name, files }, text: files.map((file) => `written: ${file}`).join('\n') };
      }),
    );
}

const AMI_HELP = `
What --ami FILE makes:
  FILE                        the disk, raw: GPT, GRUB for BIOS, root by UUID, console on ttyS0, address by DHCP on any card;
                              no machine-id and no host keys: each instance makes its own. NVMe and ENA drivers are in
                              Debian's kernels. Who may log in stays as it is in the machine: buildkit's own key, as root
  FILE.import-snapshot.json   aws ec2 import-snapshot --cli-input-json file://FILE.import-snapshot.json
  FILE.register-image.json    aws ec2 register-image --cli-input-json file://FILE.register-image.json
In this order: aws s3 cp FILE s3://BUCKET/; import-snapshot; wait for aws ec2 describe-import-snapshot-tasks to name the
snapshot; put its id in the place of SNAPSHOT; register-image.`;
