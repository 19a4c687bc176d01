/**
 * Templates: a folder of real files with `<% %>` tokens in text and `%token%` in names, rendered into a new project.
 *
 * Secret: eta (sole user), and how an unknown name is caught. `{{ }}` and `${}` of CI files and Makefiles are left alone.
 * A template is templates/NAME/template.yaml (questions, defaults, patterns) and templates/NAME/files/.
 */
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { Eta } from 'eta';
import { parse as parseYaml } from 'yaml';
import { z } from 'zod';
import type { Context } from '../core/context.ts';
import { errnoOf, ToolError, UserError } from '../core/errors.ts';
import { explainWriteError } from '../core/files.ts';
import { didYouMean } from '../core/nearest.ts';
import { run } from '../core/run.ts';

export interface RenderRequest {
  /** Name of a folder in templates/: 'python-service'. */
  readonly template: string;
  /** The new folder; must not exist or be empty. */
  readonly target: string;
  /** Answers by key, as given by --set; what is absent is asked for or takes its default. */
  readonly values: Readonly<Record<string, string>>;
  /** Asks for a value that is not given; absent: defaults are taken. */
  readonly ask?: ((question: Question) => Promise<string>) | undefined;
}

export interface Question {
  readonly key: string;
  readonly description: string;
  readonly default: string;
}

export interface RenderResult {
  readonly target: string;
  readonly values: Readonly<Record<string, string>>;
  /** Relative to the target, sorted. */
  readonly files: readonly string[];
}

const manifestSchema = z.strictObject({
  description: z.string(),
  questions: z.array(
    z.strictObject({
      key: z.string().regex(/^[a-z]+$/),
      description: z.string(),
      default: z.string(),
      pattern: z.string().optional(),
      rule: z.string().optional(),
    }),
  ),
});

type Manifest = z.infer<typeof manifestSchema>;

export interface Answers {
  readonly values: Readonly<Record<string, string>>;
  /** Who renders: defaults of author and email. */
  readonly user: { readonly name: string; readonly email: string };
}

/**
 * Renders a template into a new folder; nothing is left behind when it fails.
 * @throws UserError `unknown-template`, `template-unknown-key`, `template-bad-value`, `target-not-empty`
 */
export async function renderTemplate(context: Context, request: RenderRequest): Promise<RenderResult> {
  const folder = await findTemplate(context, request.template);
  const manifest = manifestSchema.parse(parseYaml(await readFile(join(folder, 'template.yaml'), 'utf8')));
  refuseUnknownKeys(manifest, request.values);
  const target = resolve(request.target);
  const existed = await refuseUsedTarget(target);
  const user = await whoIsThis(context);
  const named = { ...suggestName(manifest, target), ...request.values };
  const values = await answerQuestions(manifest, named, request, user);
  const sources = await readTree(join(folder, 'files'));
  const files = sources.map((source) => renderFile(source, { values, user }));
  await writeTree(target, files, existed);
  return { target, values, files: files.map((file) => file.path).sort() };
}

/** Names of the templates that there are. */
async function listTemplates(context: Context): Promise<string[]> {
  const entries = await readdir(join(context.programDir, 'templates'), { withFileTypes: true });
  return entries
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .sort();
}

async function findTemplate(context: Context, name: string): Promise<string> {
  const known = await listTemplates(context);
  if (known.includes(name)) return join(context.programDir, 'templates', name);
  throw new UserError('unknown-template', `there is no template '${name}'`, { hint: didYouMean(name, known) });
}

function refuseUnknownKeys(manifest: Manifest, values: Readonly<Record<string, string>>): void {
  const known = manifest.questions.map((question) => question.key);
  for (const key of Object.keys(values)) {
    if (known.includes(key)) continue;
    throw new UserError('template-unknown-key', `the template has no value '${key}'`, { hint: didYouMean(key, known) });
  }
}

/** @returns true when the folder is there, empty */
async function refuseUsedTarget(target: string): Promise<boolean> {
  try {
    if ((await readdir(target)).length === 0) return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    if (errnoOf(error) !== 'ENOTDIR') throw explainWriteError(error, target);
  }
  throw new UserError('target-not-empty', `'${target}' exists and is not an empty folder`, {
    hint: 'choose a new folder: nothing was changed',
  });
}

/** The folder's own name, where it is a good answer to the question 'name'. */
function suggestName(manifest: Manifest, target: string): Record<string, string> {
  const question = manifest.questions.find((one) => one.key === 'name');
  const name = basename(target);
  return question?.pattern !== undefined && new RegExp(question.pattern, 'u').test(name) ? { name } : {};
}

async function whoIsThis(context: Context): Promise<Answers['user']> {
  const ask = async (key: string): Promise<string | undefined> => {
    try {
      return (await run(context, 'git', ['config', key], { okExitCodes: [1] })).stdout.trim() || undefined;
    } catch (error) {
      if (error instanceof ToolError) return undefined; // no git: the defaults below
      throw error;
    }
  };
  return {
    name: context.env.DEBFULLNAME || ((await ask('user.name')) ?? 'Nobody'),
    email: context.env.DEBEMAIL || ((await ask('user.email')) ?? 'nobody@example.org'),
  };
}

async function answerQuestions(
  manifest: Manifest,
  given: Readonly<Record<string, string>>,
  request: RenderRequest,
  user: Answers['user'],
): Promise<Record<string, string>> {
  const values: Record<string, string> = {};
  for (const question of manifest.questions) {
    const { key, description } = question;
    const proposal = given[key] ?? renderText(question.default, { values, user }, `template.yaml, ${key}`);
    const asked = request.ask !== undefined && !Object.hasOwn(request.values, key);
    const value = asked ? (await request.ask({ key, description, default: proposal })) || proposal : proposal;
    if (question.pattern !== undefined && !new RegExp(question.pattern, 'u').test(value)) {
      throw new UserError('template-bad-value', `'${value}' cannot be the ${key}`, {
        hint: question.rule ?? `it must match ${question.pattern}`,
      });
    }
    values[key] = value;
  }
  return values;
}

interface TreeFile {
  readonly path: string;
  readonly executable: boolean;
  readonly data: Uint8Array;
}

async function readTree(root: string): Promise<TreeFile[]> {
  const entries = await readdir(root, { withFileTypes: true, recursive: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return Promise.all(
    files.sort().map(async (file) => ({
      path: relative(root, file),
      executable: ((await stat(file)).mode & 0o111) !== 0,
      data: await readFile(file),
    })),
  );
}

function renderFile(source: TreeFile, answers: Answers): TreeFile {
  const path = source.path.replaceAll(/%([a-z]+)%/g, (_, key: string) => lookUp(answers, key, source.path));
  if (!isText(source.data)) return { ...source, path };
  return { ...source, path, data: Buffer.from(renderText(Buffer.from(source.data).toString('utf8'), answers, path)) };
}

function isText(data: Uint8Array): boolean {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(data);
    return !data.includes(0);
  } catch {
    return false;
  }
}

function lookUp(answers: Answers, key: string, where: string): string {
  const value = Object.hasOwn(answers.values, key) ? answers.values[key] : undefined;
  if (value !== undefined) return value;
  throw new UserError('template-unknown-name', `the template uses '${key}', which is none of its questions`, {
    file: where,
    hint: didYouMean(key, Object.keys(answers.values)),
  });
}

const eta = new Eta({ autoEscape: false, autoTrim: false });

/**
 * One text with its `<%= it.key %>` filled in. Beside the answers there are `it.quote(text)`, a string literal for TOML,
 * YAML and JSON, `it.docstring(text)` for Python, and `it.user`.
 * @throws UserError `template-unknown-name` for a name that nothing defines
 */
export function renderText(text: string, answers: Answers, where: string): string {
  const names = {
    quote: (value: string) => JSON.stringify(value),
    docstring: (value: string) => `"""${value.replaceAll('\\', '\\\\').replaceAll('"', "'")}."""`,
    user: answers.user,
  };
  const it = new Proxy(names, {
    get: (target, key) =>
      typeof key === 'string' && Object.hasOwn(target, key)
        ? target[key as keyof typeof names]
        : lookUp(answers, String(key), where),
  });
  return eta.renderString(text, it);
}

async function writeTree(target: string, files: readonly TreeFile[], existed: boolean): Promise<void> {
  try {
    for (const file of files) {
      const path = join(target, file.path);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, file.data, { flag: 'wx' });
      if (file.executable) await chmod(path, 0o755);
    }
  } catch (error) {
    const leftovers = existed ? (await readdir(target)).map((name) => join(target, name)) : [target];
    for (const path of leftovers) await rm(path, { recursive: true, force: true });
    throw explainWriteError(error, target);
  }
}
