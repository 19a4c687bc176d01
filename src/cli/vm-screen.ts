/** `buildkit vm console|screenshot|mount|umount`: looking at a machine from outside. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { Cli } from './command.ts';

export function addVmScreenCommands(vm: Command, cli: Cli): void {
  vm.command('console <name>')
    .description(
      'type on the serial console of a running machine; Ctrl-] leaves; its log goes on; what it sends may draw on this terminal and no more',
    )
    .action(
      cli.action(async (cx, name: string) => {
        const { attachConsole } = await import('../vm/attach.ts');
        if (cx.interactive) cx.log.info(`console of '${name}': Ctrl-] leaves`);
        const leave = await attachConsole(cx, name, { input: process.stdin, output: process.stdout });
        return { data: { name, leave }, text: '' };
      }),
    );
  vm.command('screenshot <name> <file.png>')
    .description('what the screen of a machine shows that was started with --graphics or --vnc')
    .action(
      cli.action(async (cx, name: string, file: string) => {
        const { takeScreenshot } = await import('../vm/screenshot.ts');
        const path = resolve(cx.cwd, file);
        await takeScreenshot(cx, name, path);
        return { data: { name, file: path }, text: `written: ${path}` };
      }),
    );
  vm.command('mount <name> <dir>')
    .description('the disk of a machine that does not run as a folder, read only (needs root)')
    .option('--writable', 'also for writing')
    .action(
      cli.action(async (cx, name: string, dir: string, flags: { writable?: boolean }) => {
        const { mountVm } = await import('../vm/mount.ts');
        const mounted = await mountVm(cx, name, resolve(cx.cwd, dir), flags);
        return { data: mounted, text: `mounted: ${mounted.dir}\ngive it back: buildkit vm umount ${mounted.name}` };
      }),
    );
  vm.command('umount <name>')
    .description('give the disk of a machine back that vm mount mounted')
    .action(
      cli.action(async (cx, name: string) => {
        const { umountVm } = await import('../vm/mount.ts');
        const was = await umountVm(cx, name);
        return { data: { name, was }, text: was ? `unmounted: ${name}` : `${name} was not mounted` };
      }),
    );
}
