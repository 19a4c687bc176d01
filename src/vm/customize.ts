/**
 * What a user adds to a base image: a tree of files laid over it, and hooks, in the order and with the arguments of the
 * older systems: `postunpack`, the overlay, `install.sh`, `install-custom.sh`, `postconfig`.
 *
 * Secret: that all of it runs within mmdebstrap(1)'s customize hook, where services are blocked by its policy-rc.d (gone
 * afterwards), /proc and /sys are mounted in a namespace of their own, and rights are the same for root and for others.
 */
import { createHash } from 'node:crypto';
import { chmod, mkdir, readdir, readFile, readlink, stat, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { errnoOf, ToolError, UserError } from '../core/errors.ts';
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

const HOST_HOOKS = ['postunpack', 'postconfig'] as const;
const CHROOT_HOOKS = ['install.sh', 'install-custom.sh'] as const;
const HOOKS = [...HOST_HOOKS, ...CHROOT_HOOKS];
type HookName = (typeof HOOKS)[number];

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

/** Names what `custom` does to an image, for the recipe; undefined when it does nothing. */
export async function customizationDigest(custom: Customization): Promise<string | undefined> {
  if (custom.overlay === undefined && custom.hooks === undefined) return undefined;
  const hash = createHash('sha256');
  for (const { path, type, mode, content, link } of await readOverlay(custom)) {
    hash.update(JSON.stringify([path, type, mode, link ?? null, content?.length ?? 0])).update(content ?? '');
  }
  const hooks = await findHooks(custom);
  if (hooks.size > 0) hash.update(JSON.stringify([custom.name, custom.suite, custom.architecture]));
  for (const [name, path] of hooks) hash.update(`\0${name}\0`).update(await readFile(path));
  return hash.digest('hex');
}

export interface PreparedCustomization {
  /** A program for `mmdebstrap --customize-hook`; before the hook that takes traces out. */
  readonly hookFile: string;
  /** Holds the name of the stage under way, for the message when it fails. */
  readonly stageFile: string;
}

/** Writes overlay archive and hook program into `scratch`; undefined when there is nothing to do. */
export async function prepareCustomization(
  context: RunContext,
  custom: Customization,
  scratch: string,
): Promise<PreparedCustomization | undefined> {
  if (custom.overlay === undefined && custom.hooks === undefined) return undefined;
  const hooks = await findHooks(custom);
  const archive = custom.overlay === undefined ? undefined : await packOverlay(context, custom, scratch);
  const stageFile = join(scratch, 'stage');
  await writeFile(stageFile, '');
  await chmod(stageFile, 0o666); // the builder may be another user (user namespace)
  const hookFile = join(scratch, 'customize.sh');
  await writeFile(hookFile, customizeScript(custom, { archive, hooks, stageFile }));
  await chmod(hookFile, 0o755);
  return { hookFile, stageFile };
}

/** The failure of mmdebstrap as that of the stage that was under way. */
export async function withStage(error: unknown, prepared: PreparedCustomization | undefined): Promise<unknown> {
  if (!(error instanceof ToolError) || prepared === undefined) return error;
  const stage = (await readFile(prepared.stageFile, 'utf8')).trim();
  if (stage === '') return error;
  const { code, hint, command, stderrTail, logFile, status, cause } = error;
  const message = `stage '${stage}' of the base image failed`;
  const more = { hint, command, stderrTail, logFile, status, cause: cause ?? error };
  return new ToolError(code === 'tool-failed' ? 'base-stage-failed' : code, message, more);
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

interface ScriptParts {
  readonly archive: string | undefined;
  readonly hooks: ReadonlyMap<HookName, string>;
  readonly stageFile: string;
}

/** The program that mmdebstrap runs with the root folder as $1. */
export function customizeScript(custom: Customization, parts: ScriptParts): string {
  const [name, suite, stageFile] = [custom.name, custom.suite, parts.stageFile].map((word) => shellQuote([word]));
  const stage = (title: string) => `echo ${title} >${stageFile}; echo 'buildkit: stage ${title}' >&2`;
  const onHost = (hook: HookName) => {
    const path = parts.hooks.get(hook);
    return path === undefined ? [] : [stage(hook), `${shellQuote([path])} ${name} "$root" ${suite}`];
  };
  const inside = (hook: HookName) => {
    const path = parts.hooks.get(hook);
    if (path === undefined) return [];
    const copy = `"$root/tmp/.buildkit-${hook}"`;
    return [
      stage(hook),
      `cp --no-preserve=all ${shellQuote([path])} ${copy}`,
      `chmod 755 ${copy}`,
      `chroot "$root" /tmp/.buildkit-${hook} ${name} ${suite}`,
      `rm -f ${copy}`,
    ];
  };
  // inside the root, where its links lead; folders that are there keep owner and mode, and stay links if they are (/lib)
  const unpack = 'tar -x -p --numeric-owner --keep-directory-symlink --no-overwrite-dir -f - -C /';
  const hasChrootHook = CHROOT_HOOKS.some((hook) => parts.hooks.has(hook));
  return [
    '#!/bin/sh',
    'set -eu',
    'root=$1',
    ...onHost('postunpack'),
    ...(parts.archive === undefined
      ? []
      : [stage('overlay'), `chroot "$root" ${unpack} <${shellQuote([parts.archive])}`]),
    // the machine's own servers of names are not those of this one
    ...(hasChrootHook
      ? ['mv -f "$root/etc/resolv.conf" "$root/etc/.resolv"', 'cat /etc/resolv.conf >"$root/etc/resolv.conf"']
      : []),
    ...inside('install.sh'),
    ...inside('install-custom.sh'),
    ...(hasChrootHook ? ['mv -f "$root/etc/.resolv" "$root/etc/resolv.conf"'] : []),
    ...onHost('postconfig'),
    `: >${stageFile}`,
    '',
  ].join('\n');
}
