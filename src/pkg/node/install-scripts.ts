/**
 * Install scripts of npm packages: which may run, and running them so that they can do little harm.
 *
 * Secret: what npm sets up around a script (npm's scripts(7)), and how it is kept from the network, from credentials and from
 * running for ever. Native add-ons are built by such scripts, against the headers of the target's Node.js.
 */

import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { Context } from '../../core/context.ts';
import { ToolError, UserError } from '../../core/errors.ts';
import { exists } from '../../core/files.ts';
import { printable } from '../../core/log.ts';
import { run } from '../../core/run.ts';
import type { SuiteFacts } from '../../deb/suites.ts';
import { freshLog, lastLines } from '../build-log.ts';
import { readElfSections } from '../elf.ts';
import type { NodeModule } from './arborist.ts';
import { nodeHeaders } from './headers.ts';
import { asTable, installScriptsOf } from './manifest.ts';
import type { NodeTarget } from './target.ts';

const SCRIPT_LIMIT_MS = 15 * 60 * 1000;

export interface ScriptPolicy {
  /** Names, or NAME@VERSION, that may run; as buildkit's user said and `allowScripts` of the project's package.json. */
  readonly allowed: ReadonlySet<string>;
  /** Folder with include/node: npm's `nodedir`. */
  readonly nodeDir: string | undefined;
}

export interface ScriptOutcome {
  readonly warnings: readonly string[];
  /** Locations of modules whose files scripts may have changed. */
  readonly ran: ReadonlySet<string>;
}

/** What the project's package.json lets run: npm's own `allowScripts`. */
export function allowedByProject(manifest: NodeModule['manifest']): string[] {
  return Object.entries(asTable(manifest.allowScripts)).flatMap(([spec, allow]) => (allow === true ? [spec] : []));
}

export interface ScriptRequest {
  /** Where the tree is unpacked. */
  readonly folder: string;
  readonly policy: ScriptPolicy;
  readonly target: NodeTarget;
  readonly suite: SuiteFacts;
  readonly sourceDateEpoch: number;
}

export function isAllowed({ allowed }: ScriptPolicy, { name, version }: NodeModule): boolean {
  return allowed.has(name) || allowed.has(`${name}@${version}`);
}

/**
 * Runs the scripts that may run, one after the other, inner packages first.
 * @throws UserError `install-script` with the log kept, `native-addon`, `node-headers`
 */
export async function runInstallScripts(
  context: Context,
  request: ScriptRequest,
  modules: readonly NodeModule[],
): Promise<ScriptOutcome> {
  const warnings: string[] = [];
  const ran = new Set<string>();
  const deepestFirst = modules.filter((one) => one.location !== '' && !one.inBundle).toReversed();
  for (const module of deepestFirst) {
    const folder = join(request.folder, module.location);
    const manifest = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as NodeModule['manifest'];
    const buildsItself = await exists(join(folder, 'binding.gyp'));
    const scripts = installScriptsOf(manifest, buildsItself);
    if (scripts.length === 0) continue;
    const shown = printable(`${module.name}@${module.version}`);
    if (!isAllowed(request.policy, module)) {
      const isUnbuilt = buildsItself && !(await hasPrebuild(folder, request.target));
      if (isUnbuilt && !isOptional(module, modules)) throw nativeError(shown, module.name);
      const commands = scripts.map(([event, command]) => `${event}: ${printable(command.slice(0, 100))}`).join('; ');
      warnings.push(
        `'${shown}' has install scripts, which did not run (${commands}); allow them by name if it needs them`,
      );
      continue;
    }
    ran.add(module.location);
    await context.log.step(`Run the install scripts of ${shown}`, () =>
      runScripts(context, request, module, scripts, buildsItself),
    );
  }
  return { warnings, ran };
}

/** Nothing needs it: whoever names it goes on without. */
function isOptional(module: NodeModule, modules: readonly NodeModule[]): boolean {
  const edges = modules.flatMap((one) => one.edges.filter((edge) => edge.to === module.location));
  return edges.length > 0 && edges.every((edge) => edge.kind === 'optional' || edge.kind === 'peerOptional');
}

async function hasPrebuild(folder: string, target: NodeTarget): Promise<boolean> {
  return exists(join(folder, 'prebuilds', `${target.os}-${target.cpu}`));
}

function nativeError(shown: string, name: string): UserError {
  return new UserError(
    'native-addon',
    `'${shown}' is a native add-on that must be compiled, and its install script may not run`,
    {
      hint: `allow it: "allowScripts": { "${printable(name)}": true } in package.json, or pkg build --allow-scripts ${printable(name)}`,
    },
  );
}

/**
 * Runs scripts of one module, without network.
 * @throws UserError `install-script` with the log kept, `native-addon`, `node-headers`
 */
export async function runScripts(
  context: Context,
  request: ScriptRequest,
  module: NodeModule,
  scripts: readonly (readonly [event: string, command: string])[],
  buildsItself: boolean,
): Promise<void> {
  const folder = join(request.folder, module.location);
  const logFile = await freshLog(context, 'install', module.name);
  const headers = buildsItself
    ? await nodeHeaders(context, request.suite, request.target.architecture, request.policy.nodeDir)
    : undefined;
  const tools = await toolFolder(request.folder);
  for (const [event, command] of scripts) {
    const env = scriptEnvironment(context, request, module, event, tools, headers);
    try {
      await run(context, 'unshare', unshareArgs(command), { cwd: folder, env, logFile, timeoutMs: SCRIPT_LIMIT_MS });
    } catch (error) {
      throw error instanceof ToolError ? explainScript(error, module, event, logFile) : error;
    }
  }
  if (buildsItself) await refuseOtherMachine(join(folder, 'build/Release'), module, request.target);
}

/** No network but a loopback that is down; all children end with the script. */
export function unshareArgs(command: string): string[] {
  const user = process.getuid?.() === 0 ? [] : ['--map-current-user'];
  return [...user, '--net', '--pid', '--fork', '--kill-child', '--', 'sh', '-c', command];
}

/** What npm tells a script, for the target; without credentials. */
function scriptEnvironment(
  context: Context,
  request: ScriptRequest,
  module: NodeModule,
  event: string,
  tools: string,
  headers: string | undefined,
): Record<string, string | undefined> {
  const { target, folder } = request;
  const secret = Object.keys(context.env).filter((name) => /token|auth|passw|secret|_key$|^npm_config_/i.test(name));
  const bins = ancestors(module.location).map((location) => join(folder, location, 'node_modules/.bin'));
  return {
    ...Object.fromEntries(secret.map((name) => [name, undefined])),
    PATH: [tools, ...bins, dirname(process.execPath), context.env.PATH ?? '/usr/bin:/bin'].join(':'),
    HOME: tools,
    INIT_CWD: folder,
    SOURCE_DATE_EPOCH: String(request.sourceDateEpoch),
    npm_lifecycle_event: event,
    npm_package_name: module.name,
    npm_package_version: module.version,
    npm_package_json: join(folder, module.location, 'package.json'),
    npm_node_execpath: process.execPath,
    npm_execpath: '/bin/false', // a script that calls npm would install what nobody resolved
    npm_config_arch: target.cpu,
    npm_config_target_arch: target.cpu,
    npm_config_platform: target.os,
    npm_config_libc: target.libc,
    npm_config_target: target.nodeVersion,
    npm_config_runtime: 'node',
    npm_config_build_from_source: 'true',
    npm_config_nodedir: headers,
  };
}

/** 'node_modules/a/node_modules/b' -> itself, 'node_modules/a', ''. */
function ancestors(location: string): string[] {
  const found = [location];
  for (let at = location; at !== ''; ) {
    at = at.includes('/node_modules/') ? at.slice(0, at.lastIndexOf('/node_modules/')) : '';
    found.push(at);
  }
  return found;
}

/** A folder with the `node-gyp` that npm brings along for scripts. */
async function toolFolder(folder: string): Promise<string> {
  const tools = join(dirname(folder), 'tools');
  await mkdir(tools, { recursive: true });
  const fromArborist = createRequire(import.meta.resolve('@npmcli/arborist'));
  const gyp = fromArborist.resolve('node-gyp/bin/node-gyp.js');
  await writeFile(join(tools, 'node-gyp'), `#!/bin/sh\nexec '${process.execPath}' '${gyp}' "$@"\n`);
  await chmod(join(tools, 'node-gyp'), 0o755);
  return tools;
}

/** What a compiler of this machine made for another processor than the target's would be left out of the package. */
async function refuseOtherMachine(folder: string, module: NodeModule, target: NodeTarget): Promise<void> {
  const names = await readdir(folder).catch(() => []);
  for (const name of names.filter((one) => one.endsWith('.node'))) {
    const elf = readElfSections(await readFile(join(folder, name)));
    if (elf === undefined || elf.machine === target.elfMachine) continue;
    const shown = printable(`${module.name}@${module.version}`);
    throw new UserError('native-addon', `'${shown}' was compiled for another processor than ${target.architecture}`, {
      hint: `build it on a machine with ${target.architecture}, or name a cross compiler in CC and CXX`,
    });
  }
}

function explainScript(error: ToolError, module: NodeModule, event: string, logFile: string): UserError {
  const shown = printable(`${module.name}@${module.version}`);
  const what =
    error.code === 'tool-timeout'
      ? `took longer than ${SCRIPT_LIMIT_MS / 60_000} minutes`
      : `failed:\n${lastLines(error.stderrTail)}`;
  return new UserError('install-script', `the ${event} script of '${shown}' ${what}`, {
    hint: `the whole log: ${logFile}; scripts have no network here`,
    cause: error,
  });
}
