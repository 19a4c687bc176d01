/**
 * What the user asked for: folders with a project, wheel files, requirements of the Python Package Index.
 *
 * Secret: how one word is told from the other.
 */
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { UserError } from '../core/errors.ts';
import { digestFile } from '../core/files.ts';
import { isPythonProject, type PythonProject, readProject } from './python/project.ts';
import { normaliseName, parseRequirement, RequirementError } from './python/requirement.ts';
import { parseWheelName } from './python/wheel.ts';

export interface WheelInput {
  readonly path: string;
  readonly sha256: string;
}

export interface Inputs {
  readonly projects: readonly PythonProject[];
  readonly wheels: readonly WheelInput[];
  /** PEP 508. */
  readonly requirements: readonly string[];
  /** Extras asked of folders and wheels: by path of the folder or wheel. */
  readonly extras: ReadonlyMap<string, readonly string[]>;
  /** All extras asked for, by normalised name, once the wheels of the projects (in their order) are known. */
  askedExtras(projectWheels: readonly string[]): ReadonlyMap<string, readonly string[]>;
}

/**
 * @throws UserError `input-not-found`, `input-unknown`
 */
export async function readInputs(words: readonly string[], cwd: string): Promise<Inputs> {
  const projects: PythonProject[] = [];
  const wheels: WheelInput[] = [];
  const requirements: string[] = [];
  const extras = new Map<string, string[]>();
  for (const word of words) {
    const [, pathWord = '', extraWords] = /^(.*?)(?:\[([\w.,\s-]*)\])?$/.exec(word)!;
    const path = resolve(cwd, pathWord);
    const kind = await stat(path).catch(() => undefined);
    const wantsPath = /^\.{0,2}\/|^\.{1,2}$|\/$|\.whl$/.test(pathWord);
    if (extraWords !== undefined && (kind?.isDirectory() || path.endsWith('.whl'))) {
      extras.set(
        path,
        extraWords.split(',').map((one) => normaliseName(one.trim())),
      );
    }
    if (kind?.isDirectory() && (wantsPath || (await isPythonProject(path)))) {
      if (!(await isPythonProject(path))) throw unknownFolder(word);
      projects.push(await readProject(path));
    } else if (kind?.isFile() && path.endsWith('.whl')) {
      parseWheelName(path);
      wheels.push({ path, sha256: await digestFile(path, 'sha256') });
    } else if (wantsPath) {
      throw new UserError('input-not-found', `there is no '${word}'`, {
        hint: 'give a folder with a pyproject.toml, or a requirement',
      });
    } else {
      requirements.push(requirement(word));
    }
  }
  const askedExtras = (projectWheels: readonly string[]): Map<string, readonly string[]> => {
    const asked = new Map<string, readonly string[]>();
    const add = (name: string, more: readonly string[]) => {
      asked.set(normaliseName(name), [...new Set([...(asked.get(normaliseName(name)) ?? []), ...more])]);
    };
    for (const line of requirements) add(parseRequirement(line).name, parseRequirement(line).extras);
    for (const [index, project] of projects.entries())
      add(parseWheelName(projectWheels[index]!).name, extras.get(project.folder) ?? []);
    for (const wheel of wheels) add(parseWheelName(wheel.path).name, extras.get(wheel.path) ?? []);
    return asked;
  };
  return { projects, wheels, requirements, extras, askedExtras };
}

function unknownFolder(word: string): UserError {
  return new UserError('input-unknown', `'${word}' holds no project that buildkit can build`, {
    hint: 'a Python project has a pyproject.toml or a setup.py',
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
