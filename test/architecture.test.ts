/** The shape of the tree, as HACKING.md states it: who imports whom, sole users of packages, what nobody but main touches. */
import { readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';

const ROOT = resolve(import.meta.dirname, '..');
const SRC = join(ROOT, 'src');

const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  core: [],
  deb: ['core'],
  pkg: ['deb', 'core'],
  repo: ['deb', 'core'],
  proxy: ['deb', 'core'],
  vm: ['deb', 'core'],
  template: ['deb', 'core'],
  site: ['deb', 'core'],
  release: ['pkg', 'repo', 'proxy', 'vm', 'template', 'site', 'deb', 'core'],
  cli: ['release', 'pkg', 'repo', 'proxy', 'vm', 'template', 'site', 'deb', 'core'],
};

/** Package to the modules that alone may import it. */
const SOLE_USERS: Readonly<Record<string, RegExp>> = {
  execa: /^core\/run\.ts$/,
  'node:child_process': /^$/,
  'node:sqlite': /^core\/db\.ts$/,
  openpgp: /^deb\/openpgp(-keys)?\.ts$/,
  'tar-stream': /^$/, // the second opinion of test/unit/deb/tar.test.ts
  semver: /^deb\/semver\.ts$/,
  '@npmcli/arborist': /^pkg\/node\/(arborist|unpack)\.ts$/,
  pacote: /^pkg\/node\/unpack\.ts$/,
  'debian-control': /^$/,
  ssh2: /^vm\/ssh\.ts$/,
  express: /^(\w+\/serve|core\/http)\.ts$/,
  undici: /^core\/http\.ts$/,
  commander: /^cli\//,
  yaml: /^(core\/config|template\/\w+|release\/\w+|pkg\/[\w/-]+|vm\/define)\.ts$/,
};

interface Import {
  readonly from: string;
  readonly specifier: string;
}

async function sourceFiles(): Promise<string[]> {
  const entries = await readdir(SRC, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => relative(SRC, join(entry.parentPath, entry.name)))
    .sort();
}

function parse(file: string): ts.SourceFile {
  return ts.createSourceFile(file, readFileSync(join(SRC, file), 'utf8'), ts.ScriptTarget.Latest, true);
}

function importsOf(file: string): Import[] {
  const found: Import[] = [];
  const visit = (node: ts.Node): void => {
    if (
      (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) &&
      node.moduleSpecifier &&
      ts.isStringLiteral(node.moduleSpecifier)
    ) {
      found.push({ from: file, specifier: node.moduleSpecifier.text });
    }
    if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [argument] = node.arguments;
      if (argument && ts.isStringLiteral(argument)) found.push({ from: file, specifier: argument.text });
    }
    ts.forEachChild(node, visit);
  };
  visit(parse(file));
  return found;
}

/** Uses of things that only `cli/main` may touch, as "file:line what". */
function outerWorldUses(file: string): string[] {
  const source = parse(file);
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    const text = node.getText(source);
    const forbidden =
      (ts.isPropertyAccessExpression(node) && /^process\.(argv|env|exit|exitCode|cwd|on)$/.test(text)) ||
      (ts.isPropertyAccessExpression(node) && text === 'Date.now') ||
      (ts.isNewExpression(node) && node.expression.getText(source) === 'Date' && (node.arguments?.length ?? 0) === 0);
    if (forbidden)
      found.push(`${file}:${source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1} ${text}`);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

const files = await sourceFiles();
const imports = files.flatMap(importsOf);
const folderOf = (file: string) => (file.includes('/') ? file.slice(0, file.indexOf('/')) : '');

// they parse all of src: a busy machine takes its time
describe('the shape of src', { timeout: 300_000 }, () => {
  it('has only the folders that HACKING.md names', () => {
    const folders = new Set(files.map(folderOf).filter((folder) => folder !== ''));
    expect([...folders].filter((folder) => !Object.hasOwn(MAY_IMPORT, folder))).toEqual([]);
  });

  it('imports only downwards', () => {
    const wrong = imports.flatMap(({ from, specifier }) => {
      if (!specifier.startsWith('.')) return [];
      const target = relative(SRC, resolve(SRC, dirname(from), specifier));
      const [own, other] = [folderOf(from), folderOf(target)];
      if (own === '' || own === other) return [];
      return MAY_IMPORT[own]?.includes(other) ? [] : [`${from} imports ${target}`];
    });
    expect(wrong).toEqual([]);
  });

  it('has one user for each outside package that has a home', () => {
    const wrong = imports.filter(({ from, specifier }) => {
      const name = Object.keys(SOLE_USERS).find((one) => specifier === one || specifier.startsWith(`${one}/`));
      return name !== undefined && !SOLE_USERS[name]?.test(from);
    });
    expect(wrong).toEqual([]);
  });

  it('imports by relative paths that end in .ts', () => {
    expect(imports.filter(({ specifier }) => specifier.startsWith('.') && !specifier.endsWith('.ts'))).toEqual([]);
  });

  it('reads argv, environment, clock and exit code in cli/main alone', () => {
    expect(files.filter((file) => file !== 'cli/main.ts').flatMap(outerWorldUses)).toEqual([]);
  });

  it('names no module utils and says in each which secret it hides', () => {
    expect(files.filter((file) => /(^|\/)(utils?|helpers?|common|misc)\.ts$/.test(file))).toEqual([]);
    expect(files.filter((file) => !readFileSync(join(SRC, file), 'utf8').startsWith('/**'))).toEqual([]);
  });

  it('has no module-level mutable state', () => {
    const wrong = files.flatMap((file) =>
      parse(file)
        .statements.filter(
          (statement) => ts.isVariableStatement(statement) && !(statement.declarationList.flags & ts.NodeFlags.Const),
        )
        .map((statement) => `${file}: ${statement.getText().slice(0, 60)}`),
    );
    expect(wrong).toEqual([]);
  });
});
