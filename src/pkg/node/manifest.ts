/**
 * What package.json says, read with care: anybody may have written it.
 *
 * Secret: npm's package.json(5), with its older spellings (`bin` as a text, `license` as an object, `man` as a text).
 */
import { basename, normalize } from 'node:path';
import type { Manifest } from './arborist.ts';

/** Command to path of its script inside of the package. Commands and paths that could leave their folder are left out. */
export function programsOf(name: string, manifest: Manifest): Map<string, string> {
  const programs = new Map<string, string>();
  const add = (command: string, path: unknown) => {
    const inside = typeof path === 'string' ? insidePath(path) : undefined;
    const plain = basename(command.replaceAll('\\', '/'));
    if (inside !== undefined && /^[\w@%+=:.~-]+$/.test(plain) && !/^\.+$/.test(plain)) programs.set(plain, inside);
  };
  const { bin } = manifest;
  if (typeof bin === 'string') add(name, bin);
  else for (const [command, path] of Object.entries(asTable(bin))) add(command, path);
  return programs;
}

/** Man pages inside of the package, as 'man/x.1'. */
export function manPagesOf(manifest: Manifest): string[] {
  const all = typeof manifest.man === 'string' ? [manifest.man] : Array.isArray(manifest.man) ? manifest.man : [];
  const paths = all.map((path) => (typeof path === 'string' ? insidePath(path) : undefined));
  return paths.filter((path): path is string => path !== undefined && /\.[1-9](\.gz)?$/.test(path));
}

/** Licence as SPDX expression or as it is written; undefined where nothing is said. */
export function licenceOf(manifest: Manifest): string | undefined {
  const { license, licenses } = manifest;
  const first = Array.isArray(licenses) ? licenses[0] : undefined;
  for (const one of [license, asTable(license).type, first, asTable(first).type]) {
    if (typeof one === 'string' && one.trim() !== '' && one.length < 100) return one.trim();
  }
  return undefined;
}

/** 'Name <mail>', or as far as it is given. */
export function authorOf(manifest: Manifest): string | undefined {
  const { author } = manifest;
  if (typeof author === 'string') return author.replace(/\s*\([^)]*\)\s*$/, '').trim() || undefined;
  const { name, email } = asTable(author);
  if (typeof name !== 'string') return undefined;
  return typeof email === 'string' ? `${name} <${email}>` : name;
}

/** An http address of the project. */
export function homepageOf(manifest: Manifest): string | undefined {
  const repository = typeof manifest.repository === 'string' ? manifest.repository : asTable(manifest.repository).url;
  for (const one of [manifest.homepage, typeof repository === 'string' ? repositoryUrl(repository) : undefined]) {
    if (typeof one === 'string' && /^https?:\/\/[^\s/]+\S*$/.test(one)) return one;
  }
  return undefined;
}

function repositoryUrl(text: string): string {
  const short = /^(?:github:)?([\w.-]+\/[\w.-]+)$/.exec(text)?.[1];
  if (short !== undefined) return `https://github.com/${short}`;
  return text
    .replace(/^git\+/, '')
    .replace(/^(git|ssh):\/\/(git@)?/, 'https://')
    .replace(/\.git(#.*)?$/, '');
}

export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

export function asTable(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

/** Names of scripts to what they run; npm runs these around an installation, in this order. */
export function installScriptsOf(manifest: Manifest, hasBindingGyp: boolean): [event: string, command: string][] {
  const scripts = asTable(manifest.scripts);
  const found: [string, string][] = [];
  for (const event of ['preinstall', 'install', 'postinstall']) {
    const command = scripts[event];
    if (typeof command === 'string' && command.trim() !== '') found.push([event, command]);
    const builds = event === 'install' && hasBindingGyp && manifest.gypfile !== false;
    if (builds && !scripts.install && !scripts.preinstall) found.push(['install', 'node-gyp rebuild']);
  }
  return found;
}

function insidePath(path: string): string | undefined {
  const inside = normalize(path.replaceAll('\\', '/').replace(/^\/+/, ''));
  return inside === '.' || inside.startsWith('..') ? undefined : inside;
}
