/**
 * What a user adds to a base image: a tree of files laid over it, and hooks, in the order and with the arguments of the
 * older systems: `postunpack`, the overlay, `install.sh`, `install-custom.sh`, `postconfig`.
 *
 * Secret: that each of them runs as a customize hook of an mmdebstrap(1) of its own, where services are blocked by its
 * policy-rc.d (gone afterwards), /proc and /sys are mounted, and rights are the same for root and for others.
 */
import { createHash } from 'node:crypto';
import { chmod, mkdir, readdir, readFile, readlink, stat, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { run, shellQuote } from '../core/run.ts';

export interface Customization {
  /** Of the machine: `%HOSTNAME%` and the first argument of hooks. */
  readonly name: string;
  /** `%DISTR%` and the third argument of `postunpack` and `postconfig`, `bookworm`. */
  readonly suite: string;
  /** `%ARCH%`, `amd64`. */
  readonly architecture: string;
  /** Folder whose content is laid over the root. */
  readonly overlay?: string | undefined;
  /** Folder with `postunpack`, `postconfig` (run here: name, mount point, suite), `install.sh`, `install-custom.sh` (run inside). */
  readonly hooks?: string | undefined;
}

/** Stages of a build, in their order: the overlay, and hooks by their file names. */
export const CUSTOM_STAGES = ['postunpack', 'overlay', 'install.sh', 'install-custom.sh', 'postconfig'] as const;
export type CustomStage = (typeof CUSTOM_STAGES)[number];
type HookName = Exclude<CustomStage, 'overlay'>;
const HOOKS = CUSTOM_STAGES.filter((name): name is HookName => name !== 'overlay');

/** One thing of the overlay as it goes into the root: names and texts with the tokens replaced. */
export interface OverlayEntry {
  /** Relative, `etc/hostname`. */
  readonly path: string;
  readonly type: 'dir' | 'file' | 'symlink';
  readonly mode: number;
  readonly content?: Uint8Array;
  readonly link?: string;
}

/** Larger files and files with a NUL byte are no texts: their bytes stay as they are. */
const TEXT_LIMIT = 1024 * 1024;

/** `%DISTR% %HOSTNAME% %ARCH%` replaced. */
export function replaceTokens(text: string, custom: Customization): string {
  const values: Readonly<Record<string, string>> = {
    '%DISTR%': custom.suite,
    '%HOSTNAME%': custom.name,
    '%ARCH%': custom.architecture,
  };
  return text.replaceAll(/%(?:DISTR|HOSTNAME|ARCH)%/g, (token) => values[token] ?? token);
}

/**
 * The overlay, sorted by path, parents first.
 * @throws UserError `overlay-missing`, `overlay-kind` for devices, sockets and pipes
 */
export async function readOverlay(custom: Customization): Promise<OverlayEntry[]> {
  if (custom.overlay === undefined) return [];
  const entries: OverlayEntry[] = [];
  await readFolder(custom, custom.overlay, '', entries);
  return entries;
}

async function readFolder(custom: Customization, folder: string, at: string, into: OverlayEntry[]): Promise<void> {
  const found = await readdir(folder, { withFileTypes: true }).catch((cause: unknown) => {
    if (errnoOf(cause) !== 'ENOENT' && errnoOf(cause) !== 'ENOTDIR') throw cause;
    throw new UserError('overlay-missing', `there is no folder '${folder}'`, { hint: 'see --overlay', cause });
  });
  for (const one of found.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const source = join(folder, one.name);
    const path = join(at, replaceTokens(one.name, custom));
    if (one.isSymbolicLink()) {
      into.push({ path, type: 'symlink', mode: 0o777, link: replaceTokens(await readlink(source), custom) });
      continue;
    }
    const mode = (await stat(source)).mode & 0o7777;
    if (one.isDirectory()) {
      into.push({ path, type: 'dir', mode });
      await readFolder(custom, source, path, into);
    } else if (one.isFile()) {
      into.push({ path, type: 'file', mode, content: fillIn(await readFile(source), custom) });
    } else {
      throw new UserError('overlay-kind', `'${source}' is neither file, folder nor link`, {
        file: source,
        hint: 'take it out of the overlay; make it in install.sh if the machine needs it',
      });
    }
  }
}

function fillIn(content: Buffer, custom: Customization): Uint8Array {
  if (content.length > TEXT_LIMIT || content.includes(0)) return content;
  const text = content.toString('latin1'); // byte for byte, whatever the encoding
  const encoded = { ...custom, name: latin1(custom.name), suite: latin1(custom.suite) };
  return Buffer.from(replaceTokens(text, encoded), 'latin1');
}

function latin1(text: string): string {
  return Buffer.from(text).toString('latin1');
}

/**
 * The hooks of the folder that are there.
 * @throws UserError `hooks-missing`, `hook-not-executable`
 */
export async function findHooks(custom: Customization): Promise<ReadonlyMap<HookName, string>> {
  const found = new Map<HookName, string>();
  if (custom.hooks === undefined) return found;
  for (const name of HOOKS) {
    const path = resolve(custom.hooks, name);
    const text = await readFile(path, 'latin1').catch((cause: unknown) => {
      if (errnoOf(cause) !== 'ENOENT' && errnoOf(cause) !== 'ENOTDIR') throw cause;
      return undefined;
    });
    if (text === undefined) continue;
    const executable = ((await stat(path)).mode & 0o111) !== 0;
    if (!executable || !(text.startsWith('#!') || text.startsWith('\x7fELF'))) {
      throw new UserError('hook-not-executable', `hook '${path}' is no program`, {
        file: path,
        hint: `let it begin with #!/bin/sh, then: chmod +x ${shellQuote([path])}`,
      });
    }
    found.set(name, path);
  }
  if (found.size > 0) return found;
  throw new UserError('hooks-missing', `'${custom.hooks}' has none of the hooks`, {
    hint: `their names are ${HOOKS.join(', ')}`,
  });
}

/** What happens in each stage, in their order; empty when there is nothing to do. */
export async function customizationParts(custom: Customization): Promise<ReadonlyMap<CustomStage, string>> {
  const parts = new Map<CustomStage, string>();
  const hooks = await findHooks(custom);
  for (const stage of CUSTOM_STAGES) {
    const hash = createHash('sha256');
    if (stage === 'overlay') {
      if (custom.overlay === undefined) continue;
      for (const { path, type, mode, content, link } of await readOverlay(custom)) {
        hash.update(JSON.stringify([path, type, mode, link ?? null, content?.length ?? 0])).update(content ?? '');
      }
    } else {
      const path = hooks.get(stage);
      if (path === undefined) continue;
      hash.update(JSON.stringify([custom.name, custom.suite, custom.architecture])).update(await readFile(path));
    }
    parts.set(stage, hash.digest('hex'));
  }
  return parts;
}

/** Names what `custom` does to an image, for the recipe; undefined when it does nothing. */
export function customizationDigest(parts: ReadonlyMap<CustomStage, string>): string | undefined {
  if (parts.size === 0) return undefined;
  return createHash('sha256')
    .update(JSON.stringify([...parts]))
    .digest('hex');
}

/** Writes the programs of `stages` into `scratch`, each for `mmdebstrap --customize-hook`. */
export async function writeStageHooks(
  context: RunContext,
  custom: Customization,
  stages: readonly CustomStage[],
  scratch: string,
): Promise<ReadonlyMap<CustomStage, string>> {
  const hooks = await findHooks(custom);
  const files = new Map<CustomStage, string>();
  for (const stage of stages) {
    const source = stage === 'overlay' ? await packOverlay(context, custom, scratch) : hooks.get(stage)!;
    const file = join(scratch, `stage-${stage}`);
    await writeFile(file, stageScript(custom, stage, source), { mode: 0o755 });
    files.set(stage, file);
  }
  return files;
}

async function packOverlay(context: RunContext, custom: Customization, scratch: string): Promise<string> {
  const staged = join(scratch, 'overlay');
  await mkdir(staged, { recursive: true });
  const entries = await readOverlay(custom);
  for (const { path, type, content, link } of entries) {
    const target = join(staged, path);
    if (type === 'dir') await mkdir(target, { recursive: true });
    else if (type === 'symlink') await symlink(link ?? '', target);
    else await writeFile(target, content ?? '');
  }
  // deepest first: a folder without w is closed once it is filled
  for (const { path, type, mode } of entries.toReversed()) {
    if (type !== 'symlink') await chmod(join(staged, path), mode);
  }
  const archive = join(scratch, 'overlay.tar');
  const owner = ['--numeric-owner', '--owner=0', '--group=0'];
  await run(context, 'tar', [
    '--create',
    '--format=gnu',
    '--sort=name',
    ...owner,
    '--file',
    archive,
    '-C',
    staged,
    '.',
  ]);
  await chmod(archive, 0o644);
  return archive;
}

/**
 * The program that mmdebstrap runs with the root folder as $1.
 * @param source the hook, or the archive of the overlay
 */
export function stageScript(custom: Customization, stage: CustomStage, source: string): string {
  return ['#!/bin/sh', 'set -eu', 'root=$1', ...stageLines(custom, stage, source), ''].join('\n');
}

function stageLines(custom: Customization, stage: CustomStage, source: string): string[] {
  const [name, suite, path] = [custom.name, custom.suite, source].map((word) => shellQuote([word]));
  if (stage === 'overlay') {
    // inside the root, where its links lead; folders that are there keep owner and mode, and stay links if they are (/lib)
    const unpack = 'tar -x -p --numeric-owner --keep-directory-symlink --no-overwrite-dir -f - -C /';
    return [`chroot "$root" ${unpack} <${path}`];
  }
  if (stage === 'postunpack' || stage === 'postconfig') return [`${path} ${name} "$root" ${suite}`];
  const copy = `"$root/tmp/.buildkit-${stage}"`;
  return [
    // the machine's own servers of names are not those of this one
    'mv -f "$root/etc/resolv.conf" "$root/etc/.resolv"',
    'cat /etc/resolv.conf >"$root/etc/resolv.conf"',
    `cp --no-preserve=all ${path} ${copy}`,
    `chmod 755 ${copy}`,
    `chroot "$root" /tmp/.buildkit-${stage} ${name} ${suite}`,
    `rm -f ${copy}`,
    'mv -f "$root/etc/.resolv" "$root/etc/resolv.conf"',
  ];
}
