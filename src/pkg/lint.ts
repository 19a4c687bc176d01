/**
 * Quick checks of a binary package: every problem at once, each with the section of Debian Policy that it breaks.
 *
 * Secret: the rules that matter before anybody else sees the package. lintian knows many more, and takes seconds.
 */
import { dirname } from 'node:path';
import type { Context } from '../core/context.ts';
import type { Problem } from '../core/errors.ts';
import { hasProgram, run } from '../core/run.ts';
import { isArch } from '../deb/arch.ts';
import { type DebEntry, type DebFile, type DebSpec, listDeb, readDeb } from '../deb/archive.ts';
import { getField, type Paragraph } from '../deb/control.ts';
import { isPackageName } from '../deb/package.ts';
import { parseRelations, RELATION_FIELDS } from '../deb/relation.ts';
import { isVersion } from '../deb/version.ts';

export interface Finding extends Problem {
  readonly severity: 'error' | 'warning';
  /** Of Debian Policy, or the document that says so. */
  readonly policy: string;
}

export type LintFile = Pick<DebFile, 'path' | 'type' | 'mode' | 'link'>;

export interface LintInput {
  readonly control: Paragraph;
  readonly files: readonly LintFile[];
  /** Maintainer scripts by name. */
  readonly scripts: Readonly<Record<string, string>>;
  readonly conffiles: readonly string[];
}

/** What is about to be written. */
export function lintInputOf(spec: DebSpec): LintInput {
  const files: LintFile[] = [];
  const conffiles = [...(spec.conffiles ?? [])];
  for (const entry of spec.entries as Iterable<DebEntry>) {
    files.push({
      path: entry.path,
      type: entry.type,
      mode: entry.mode,
      ...(entry.link === undefined ? {} : { link: entry.link }),
    });
    if (entry.conffile) conffiles.push(entry.path);
  }
  return { control: spec.control, files, scripts: { ...spec.scripts } as Record<string, string>, conffiles };
}

/** Checks a .deb file; with lintian's findings where it is installed and wanted. */
export async function lintDeb(context: Context, path: string, withLintian: boolean): Promise<Finding[]> {
  const info = await readDeb(context, path);
  const files: LintFile[] = [];
  for await (const file of listDeb(context, path)) files.push(file);
  const scripts: Record<string, string> = {};
  for (const name of ['preinst', 'postinst', 'prerm', 'postrm', 'config']) {
    const text = info.controlFiles.get(name);
    if (text) scripts[name] = Buffer.from(text).toString('utf8');
  }
  const own = lint({ control: info.package.control, files, scripts, conffiles: info.conffiles });
  if (!withLintian || !(await hasProgram(context, 'lintian'))) return own;
  return [...own, ...(await lintian(context, path))];
}

async function lintian(context: Context, path: string): Promise<Finding[]> {
  const options = ['--allow-root', '--fail-on', 'none', '--tag-display-limit', '0', '--no-cfg'];
  const { stdout } = await run(context, 'lintian', [...options, path], { timeoutMs: 600_000 });
  return stdout.split('\n').flatMap((line): Finding[] => {
    const match = /^([EW]): (\S+?)(?: \w+)?: (\S+)(.*)$/.exec(line);
    if (!match) return [];
    const severity = match[1] === 'E' ? 'error' : 'warning';
    return [{ severity, code: match[3]!, message: `${match[3]}${match[4]}`, subject: match[2], policy: 'lintian' }];
  });
}

type Report = (severity: Finding['severity'], code: string, policy: string, message: string, hint?: string) => void;

/** Pure: every rule over everything. */
export function lint(input: LintInput): Finding[] {
  const subject = getField(input.control, 'Package') ?? '(no name)';
  const findings: Finding[] = [];
  const report: Report = (severity, code, policy, message, hint) =>
    findings.push({ severity, code, policy, message, subject, hint });
  checkFields(input.control, report);
  checkDescription(input.control, report);
  for (const file of input.files) checkFile(file, report);
  checkDocuments(input, subject, report);
  checkConffiles(input, report);
  checkScripts(input, report);
  checkPython(input, report);
  checkUnits(input, report);
  return findings;
}

const KNOWN_FIELDS = new Set(
  `Package Source Version Architecture Essential Protected Important Multi-Arch Maintainer Original-Maintainer Installed-Size Pre-Depends Depends Recommends Suggests
  Enhances Breaks Conflicts Replaces Provides Section Priority Homepage Description Built-Using Static-Built-Using Build-Ids Tag
  Package-Type Origin Bugs Auto-Built-Package Gstreamer-Version Ruby-Versions Python-Version Cnf-Extra-Commands Efi-Vendor Ghc-Package Go-Import-Path Postgresql-Catversion Lua-Versions Modaliases Task`
    .toLowerCase()
    .split(/\s+/),
);

function checkFields(control: Paragraph, report: Report): void {
  const value = (name: string) => getField(control, name);
  for (const name of ['Package', 'Version', 'Architecture', 'Maintainer', 'Description']) {
    if (!value(name)) report('error', 'missing-field', '5.3', `the field '${name}' is missing`);
  }
  for (const name of ['Section', 'Priority']) {
    if (!value(name)) report('warning', 'missing-field', '5.3', `the field '${name}' is recommended`);
  }
  const wrong = (name: string, fits: (text: string) => boolean, policy: string) => {
    const text = value(name);
    if (text && !fits(text)) report('error', 'bad-field', policy, `'${text}' cannot be the ${name}`);
  };
  wrong('Package', isPackageName, '5.6.7');
  wrong('Version', isVersion, '5.6.12');
  wrong('Architecture', isArch, '5.6.8');
  wrong('Maintainer', (text) => /^[^<>]+ <[^<>@\s]+@[^<>@\s]+>$/.test(text), '5.6.2');
  for (const { name } of control.fields) {
    if (KNOWN_FIELDS.has(name.toLowerCase()) || /^X/i.test(name)) continue;
    report(
      'warning',
      'unknown-field',
      '5.3',
      `Debian knows no field '${name}'`,
      'licence and vendor belong into the copyright file',
    );
  }
  for (const name of RELATION_FIELDS) checkRelations(name, value(name), value('Package') ?? '', report);
}

function checkRelations(field: string, text: string | undefined, self: string, report: Report): void {
  if (text === undefined) return;
  try {
    const groups = parseRelations(text);
    const onItself = groups.some((group) => group.length === 1 && group[0]?.name === self);
    if (onItself && /Depends$/.test(field))
      report('error', 'depends-on-itself', '7.2', `'${field}' names the package itself`);
  } catch (cause) {
    report('error', 'bad-relation', '7.1', `'${field}': ${(cause as Error).message}`);
  }
}

function checkDescription(control: Paragraph, report: Report): void {
  const [synopsis = '', ...extended] = (getField(control, 'Description') ?? '').split('\n');
  if (synopsis.length > 80)
    report('warning', 'long-synopsis', '3.4.1', `the synopsis has ${synopsis.length} characters, 80 are the limit`);
  if (/^(a|an|the) /i.test(synopsis))
    report('warning', 'synopsis-article', '3.4.1', 'the synopsis begins with an article');
  if (/\.$/.test(synopsis) && !/(\.\.|etc\.)$/.test(synopsis))
    report('warning', 'synopsis-full-stop', '3.4.1', 'the synopsis ends with a full stop');
  if (synopsis !== '' && extended.length === 0)
    report('warning', 'no-extended-description', '3.4.2', 'there is no extended description');
}

/** Where packages have no business (FHS 3.0 and Policy 9.1). */
const FORBIDDEN: readonly [RegExp, string, string][] = [
  [/^\/usr\/local\//, '9.1.2', 'belongs to the administrator'],
  [/^\/(home|root|mnt|media|srv)\/./, '9.1.1', 'belongs to the administrator'],
  [/^\/(tmp|var\/tmp|run|var\/run|var\/lock|proc|sys|dev)\/./, '9.1.1', 'does not outlive a reboot'],
];

function checkFile({ path, type, mode, link }: LintFile, report: Report): void {
  const place = type === 'dir' ? undefined : FORBIDDEN.find(([pattern]) => pattern.test(path));
  if (place) report('error', 'forbidden-place', place[1], `'${path}' ${place[2]}`);
  if (type === 'symlink') {
    checkLink(path, link ?? '', report);
    return;
  }
  const sticky = type === 'dir' && (mode & 0o1000) !== 0;
  if ((mode & 0o002) !== 0 && !sticky)
    report('error', 'world-writable', '10.9', `everybody may write '${path}' (${octal(mode)})`);
  if (type === 'file' && (mode & 0o6000) !== 0)
    report('warning', 'setuid', '10.9', `'${path}' runs with other rights (${octal(mode)})`);
  if (type === 'file' && /^\/(usr\/)?s?bin\//.test(path) && (mode & 0o111) === 0)
    report('error', 'program-not-executable', '10.9', `'${path}' cannot be run`);
  if (type === 'file' && /^\/usr\/share\/man\/.*\.\d\w*$/.test(path))
    report('warning', 'manual-not-compressed', '12.1', `'${path}' is not compressed`);
}

/** Links inside one top-level folder are relative, others absolute. */
function checkLink(path: string, link: string, report: Report): void {
  const target = link.startsWith('/') ? link : new URL(link, `file://${dirname(path)}/`).pathname;
  const sameTop = target.split('/')[1] === path.split('/')[1];
  if (link.startsWith('/') && sameTop)
    report('warning', 'absolute-link', '10.5', `'${path}' -> '${link}' should be relative`);
  if (!link.startsWith('/') && !sameTop)
    report('warning', 'relative-link', '10.5', `'${path}' -> '${link}' should be absolute`);
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}

function checkDocuments(input: LintInput, name: string, report: Report): void {
  const folder = `/usr/share/doc/${name}`;
  if (input.files.some((file) => file.path === folder && file.type === 'symlink')) return;
  const has = (pattern: RegExp) =>
    input.files.some((file) => file.path.startsWith(`${folder}/`) && pattern.test(file.path.slice(folder.length + 1)));
  if (!has(/^copyright$/)) report('error', 'no-copyright', '12.5', `'${folder}/copyright' is missing`);
  if (!has(/^changelog(\.Debian)?\.gz$/))
    report('warning', 'no-changelog', '12.7', `'${folder}/changelog.Debian.gz' is missing`);
}

function checkConffiles(input: LintInput, report: Report): void {
  const files = new Map(input.files.map((file) => [file.path, file]));
  for (const path of input.conffiles) {
    if (files.get(path)?.type !== 'file')
      report('error', 'conffile-missing', '10.7', `the configuration file '${path}' is not in the package`);
    else if (!path.startsWith('/etc/'))
      report('warning', 'conffile-outside-etc', '10.7.2', `the configuration file '${path}' is not below /etc`);
  }
  for (const { path, type } of input.files) {
    if (type !== 'file' || !path.startsWith('/etc/') || input.conffiles.includes(path)) continue;
    report(
      'error',
      'etc-not-conffile',
      '10.7.3',
      `an upgrade would overwrite what the administrator changed in '${path}'`,
      'mark it as a configuration file',
    );
  }
}

function checkScripts(input: LintInput, report: Report): void {
  for (const [name, text] of Object.entries(input.scripts)) {
    const shell = /^#!\s*(\S+)/.exec(text)?.[1];
    if (shell === undefined) report('error', 'script-without-interpreter', '6.1', `'${name}' does not begin with #!`);
    else if (/^\/bin\/(ba|da)?sh$/.test(shell) && !/^\s*set -[a-z]*e|^#!.*sh -[a-z]*e/m.test(text)) {
      report('warning', 'script-ignores-errors', '10.4', `'${name}' goes on after an error: it has no 'set -e'`);
    }
  }
}

function checkPython(input: LintInput, report: Report): void {
  const compiled = input.files.find((file) => file.type === 'file' && /\.py[co]$/.test(file.path));
  if (compiled)
    report(
      'error',
      'compiled-python',
      'Python policy 3.7',
      `'${compiled.path}' is made at installation, it must not be shipped`,
    );
  const modules = input.files.some(
    (file) => file.type === 'file' && /^\/usr\/lib\/python3\/dist-packages\/.*\.py$/.test(file.path),
  );
  if (modules && !input.scripts.postinst?.includes('py3compile'))
    report(
      'warning',
      'python-not-compiled',
      'Python policy 3.7',
      'nothing compiles its Python modules at installation',
    );
}

function checkUnits(input: LintInput, report: Report): void {
  const units = input.files.filter(
    (file) => file.type === 'file' && /\/systemd\/system\/[^/]+\.(service|socket|timer|path)$/.test(file.path),
  );
  const misplaced = units.find((file) => file.path.startsWith('/etc/'));
  if (misplaced) report('warning', 'unit-in-etc', '9.3', `'${misplaced.path}' belongs to the administrator`);
  const known = units.filter((file) => !file.path.startsWith('/etc/'));
  if (known.length > 0 && !input.scripts.postinst?.includes('deb-systemd-'))
    report(
      'warning',
      'unit-not-handled',
      '9.3',
      `nothing enables or starts ${known.length === 1 ? `'${known[0]!.path}'` : `${known.length} units`}`,
    );
}
