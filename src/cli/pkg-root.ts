/** `buildkit pkg root`: the small Debians that packages are built in. */
import type { Command } from 'commander';
import type { BuildRoot, RootRequest } from '../pkg/root/root.ts';
import type { UsedProxy } from '../release/proxy-use.ts';
import { type Cli, type CommandContext, type Output, table } from './command.ts';

interface RootOptions {
  readonly suite?: string;
  readonly arch?: string;
  readonly mirror?: string;
  readonly proxy?: string;
}

export function addPkgRoot(pkg: Command, cli: Cli): void {
  const root = pkg.command('root').description('build roots: the small Debians that packages are built in');
  const making = (usage: string, description: string) =>
    root
      .command(usage)
      .description(description)
      .option('--suite <codename>', 'bookworm, trixie, sid, ...; default: suite in buildkit.yaml')
      .option('--arch <architecture>', "Debian's name; default: that of this machine")
      .option('--mirror <url>', "a mirror of Debian; default: those of this machine's apt")
      .option('--proxy <url>', "an apt proxy; 'auto': find or start one; default: that of this machine's apt");
  making('create', 'make the root of a suite, if there is none').action(
    cli.action(async (cx, options: RootOptions) => {
      const { createRoot } = await import('../pkg/root/root.ts');
      await using proxy = await proxyFor(cx, options);
      const { root: made, made: isNew } = await createRoot(cx, await rootRequest(cx, options, proxy));
      return rootOutput(made, isNew ? 'made' : 'there already; buildkit pkg root update makes it anew');
    }),
  );
  making('update', 'make it anew from what the mirror has now').action(
    cli.action(async (cx, options: RootOptions) => {
      const { updateRoot } = await import('../pkg/root/root.ts');
      const { sweep } = await import('../pkg/root/clone.ts');
      await using proxy = await proxyFor(cx, options);
      const { root: made, made: isNew } = await updateRoot(cx, await rootRequest(cx, options, proxy));
      await sweep(cx);
      return rootOutput(made, isNew ? 'made anew' : 'the mirror has nothing new');
    }),
  );
  root
    .command('list')
    .description('the roots there are')
    .action(
      cli.action(async (cx) => {
        const { listRoots } = await import('../pkg/root/root.ts');
        const roots = await listRoots(cx);
        const rows = roots.map((one) => [
          one.id,
          one.created.slice(0, 10),
          `${one.packages.length} packages`,
          one.clone,
        ]);
        return { data: roots.map(withoutPackages), text: table(rows) };
      }),
    );
  root
    .command('show')
    .description('what is in a root')
    .argument('<root>', 'its id, or a suite')
    .action(
      cli.action(async (cx, word: string) => {
        const { getRoot } = await import('../pkg/root/root.ts');
        const found = await getRoot(cx, word);
        const facts = [
          ['id', found.id],
          ['folder', found.dir],
          ['made', found.created],
          ['clones by', found.clone],
        ];
        return { data: found, text: `${table(facts)}\n\n${found.sources}\n${found.packages.join('\n')}` };
      }),
    );
  root
    .command('remove')
    .description('delete a root and its layers')
    .argument('<root>', 'its id, or a suite')
    .action(
      cli.action(async (cx, word: string) => {
        const [{ getRoot, removeRoot }, { rootsInUse, sweep }] = await Promise.all([
          import('../pkg/root/root.ts'),
          import('../pkg/root/clone.ts'),
        ]);
        await sweep(cx);
        const found = await getRoot(cx, word);
        await removeRoot(cx, found, await rootsInUse(cx));
        return { data: { removed: found.id }, text: `removed ${found.id}` };
      }),
    );
}

async function proxyFor(cx: CommandContext, { proxy: wanted }: RootOptions): Promise<UsedProxy | undefined> {
  const { proxy: config } = await cx.config();
  const { useProxy } = await import('../release/proxy-use.ts');
  return await useProxy(cx, { wanted, workspaceDir: cx.workspaceDir, config });
}

async function rootRequest(
  cx: CommandContext,
  options: RootOptions,
  proxy: UsedProxy | undefined,
): Promise<RootRequest> {
  const { suite, arch: architecture, mirror } = options;
  return { suite: suite ?? (await cx.config()).suite, architecture, mirror, proxy: proxy?.url };
}

function withoutPackages({ packages, ...root }: BuildRoot): object {
  return { ...root, packages: packages.length };
}

function rootOutput(root: BuildRoot, what: string): Output {
  return { data: withoutPackages(root), text: `${root.id}: ${what}` };
}
