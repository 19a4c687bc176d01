/**
 * What the user asked for: folders of every kind, Debian source packages, wheel files, requirements of the Python Package Index and files of them.
 *
 * Secret: how one word is told from the other.
 */
import { stat } from 'node:fs/promises';
import { basename, dirname, resolve } from 'node:path';
import { UserError } from '../core/errors.ts';
import { digestFile } from '../core/files.ts';
import { readManifest } from './manifest/builder.ts';
import type { Manifest } from './manifest/schema.ts';
import type { NodeInput } from './node/builder.ts';
import { isNodeProject } from './node/project.ts';
import type { PythonInputs } from './python/builder.ts';
import { isLockName, lockedRequirements, projectConstraints } from './python/lock.ts';
import { isPythonProject, readProject } from './python/project.ts';
import { normaliseName, parseRequirement, RequirementError } from './python/requirement.ts';
import { parseWheelName } from './python/wheel.ts';
import type { SourceInput } from './source-package/prepare.ts';
import { isDebianSource } from './source-package/read.ts';
import { isTree } from './tree/builder.ts';

export interface Inputs {
  /** Folders with DEBIAN/. */
  readonly trees: readonly string[];
  /** Debian source packages. */
  readonly sources: readonly SourceInput[];
  /** Folders whose buildkit.yaml has a package section. */
  readonly manifests: readonly { readonly folder: string; readonly manifest: Manifest }[];
  /** undefined: nothing of it was asked for. */
  readonly python: PythonInputs | undefined;
  readonly node: readonly NodeInput[];
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] extends readonly (infer E)[] ? E[] : T[K] };

/**
 * @throws UserError `input-not-found`, `input-unknown`
 */
export async function readInputs(words: readonly string[], cwd: string): Promise<Inputs> {
  const python: Mutable<PythonInputs> = {
    projects: [],
    wheels: [],
    requirements: [],
    requirementFiles: [],
    constraints: [],
  };
  const trees: string[] = [];
  const sources: SourceInput[] = [];
  const node: NodeInput[] = [];
  const manifests: { folder: string; manifest: Manifest }[] = [];
  for (const word of words) {
    const [, pathWord = '', extraWords] = /^(.*?)(?:\[([\w.,\s-]*)\])?$/.exec(word)!;
    const path = resolve(cwd, pathWord);
    const extras = extraWords === undefined ? [] : extraWords.split(',').map((one) => normaliseName(one.trim()));
    const kind = await stat(path).catch(() => undefined);
    const wantsPath = /^\.{0,2}\/|^\.{1,2}$|\/$|\.(whl|txt|lock|toml|tgz|dsc)$/.test(pathWord);
    const manifest = kind?.isDirectory() ? await readManifest(path) : undefined;
    if (manifest) manifests.push({ folder: path, manifest });
    else if (kind?.isDirectory() && (await isTree(path))) trees.push(path);
    else if (kind?.isDirectory() && (await isDebianSource(path))) sources.push({ path, kind: 'folder' });
    else if (kind?.isFile() && path.endsWith('.dsc')) sources.push({ path, kind: 'list' });
    else if (kind?.isDirectory() && (await isPythonProject(path))) {
      python.projects.push({ project: await readProject(path), extras });
      python.constraints.push(...(await projectConstraints(path)));
    } else if (kind?.isDirectory() && (await isNodeProject(path))) node.push({ kind: 'project', folder: path });
    else if (kind?.isDirectory() && wantsPath) throw unknownFolder(word);
    else if (kind?.isFile() && /^(package-lock|npm-shrinkwrap)\.json$/.test(basename(path)))
      node.push({ kind: 'project', folder: dirname(path) });
    else if (kind?.isFile() && /\.t(ar\.)?gz$/.test(path)) node.push({ kind: 'package', spec: path });
    else if (word.startsWith('npm:')) node.push({ kind: 'package', spec: word.slice('npm:'.length) });
    else if (kind?.isFile() && path.endsWith('.whl')) {
      parseWheelName(path);
      python.wheels.push({ path, sha256: await digestFile(path, 'sha256'), extras });
    } else if (kind?.isFile() && isLockName(path)) {
      python.requirements.push(...(await lockedRequirements(path)));
    } else if (kind?.isFile() && path.endsWith('.txt')) {
      python.requirementFiles.push(path);
    } else if (wantsPath) {
      throw new UserError('input-not-found', kind ? `buildkit cannot build '${word}'` : `there is no '${word}'`, {
        hint: 'give a folder with a project or debian/, a .dsc, a wheel, a requirements.txt, an npm tarball, or a requirement',
      });
    } else {
      python.requirements.push(requirement(word));
    }
  }
  const isEmpty = Object.values(python).every((list) => list.length === 0);
  return { trees, sources, manifests, node, python: isEmpty ? undefined : python };
}

function unknownFolder(word: string): UserError {
  return new UserError('input-unknown', `'${word}' holds no project that buildkit can build`, {
    hint: 'it needs a pyproject.toml, a setup.py, a package.json, a debian/ or DEBIAN/ with its control, or a package section in its buildkit.yaml',
  });
}

function requirement(word: string): string {
  const line = word.replace(/^pypi:/, '');
  try {
    parseRequirement(line);
    return line;
  } catch (cause) {
    if (!(cause instanceof RequirementError)) throw cause;
    throw new UserError('input-unknown', `'${word}' is neither a folder nor a requirement`, {
      hint: "write a requirement as 'flask>=3' or 'uvicorn[standard]==0.30.1'",
      cause,
    });
  }
}
