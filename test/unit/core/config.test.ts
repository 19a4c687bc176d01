import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { formatOrigin, loadConfig } from '../../../src/core/config.ts';
import { ProblemsError } from '../../../src/core/errors.ts';
import { configSchema } from '../../../src/release/config.ts';

const schema = z.strictObject({
  name: z.string().default('x'),
  repo: z
    .strictObject({
      origin: z.string().optional(),
      suites: z.array(z.string()).default([]),
      'valid-for': z.string().default('14d'),
    })
    .prefault({}),
  vm: z.strictObject({ cpus: z.int().default(2), kvm: z.boolean().default(false) }).prefault({}),
});

function load(text: string, env: Record<string, string> = {}, flags = {}) {
  return loadConfig(schema, { file: { path: 'buildkit.yaml', text }, env, envPrefix: 'BUILDKIT', flags });
}

function problemsOf(text: string, env: Record<string, string> = {}) {
  try {
    load(text, env);
  } catch (error) {
    if (error instanceof ProblemsError) return error.problems;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe('layers', () => {
  it('lets flags win over the environment over the file over defaults, and says where each value came from', () => {
    const loaded = load(
      'name: fromfile\nrepo:\n  origin: fromfile\n  valid-for: 1d\n',
      { BUILDKIT_REPO_ORIGIN: 'fromenv', BUILDKIT_REPO_VALID_FOR: '2d' },
      { 'repo.valid-for': { value: '3d', flag: '--valid-for' } },
    );
    expect(loaded.values).toEqual({
      name: 'fromfile',
      repo: { origin: 'fromenv', suites: [], 'valid-for': '3d' },
      vm: { cpus: 2, kvm: false },
    });
    expect(Object.fromEntries(loaded.entries.map(({ key, origin }) => [key, formatOrigin(origin)]))).toEqual({
      name: 'buildkit.yaml:1:7',
      'repo.origin': 'environment BUILDKIT_REPO_ORIGIN',
      'repo.suites': 'default',
      'repo.valid-for': 'flag --valid-for',
      'vm.cpus': 'default',
      'vm.kvm': 'default',
    });
  });

  it('reads lists, numbers and booleans from the environment', () => {
    const { values } = load('', {
      BUILDKIT_REPO_SUITES: 'bookworm, trixie',
      BUILDKIT_VM_CPUS: '4',
      BUILDKIT_VM_KVM: 'yes',
    });
    expect(values.repo.suites).toEqual(['bookworm', 'trixie']);
    expect(values.vm).toEqual({ cpus: 4, kvm: true });
  });

  it('takes an empty file as no file', () => {
    expect(load('# nothing yet\n').values.name).toBe('x');
  });
});

describe('mistakes', () => {
  it('are all listed, with file, line, column and the nearest known key', () => {
    expect(problemsOf('nmae: a\nrepo:\n  orgin: b\nvm:\n  cpus: two\n')).toMatchObject([
      { message: "unknown key 'nmae'", line: 1, column: 1, hint: "did you mean 'name'?" },
      { message: "unknown key 'repo.orgin'", line: 3, column: 3, hint: "did you mean 'origin'?" },
      { message: "'vm.cpus': invalid input: expected number, received string", line: 5, column: 9 },
    ]);
  });

  it('name the variable when the environment is wrong', () => {
    expect(problemsOf('', { BUILDKIT_VM_CPUS: 'many' })[0]?.message).toContain('(from BUILDKIT_VM_CPUS)');
  });

  it('in YAML itself carry their position', () => {
    expect(problemsOf('repo: [\n')[0]).toMatchObject({ code: 'yaml-syntax', file: 'buildkit.yaml' });
    expect(problemsOf('name: a\nname: b\n')[0]).toMatchObject({ code: 'yaml-syntax', line: 2 });
    expect(problemsOf('- a\n')[0]).toMatchObject({ message: 'the file must be a mapping of keys to values' });
  });

  it('do not let a file of aliases eat the memory', () => {
    const bomb = [
      'a: &a [x,x,x,x,x,x,x,x,x]',
      ...'bcdefgh'
        .split('')
        .map((key, index) => `${key}: &${key} [${Array(9).fill(`*${'abcdefgh'[index]}`).join(',')}]`),
    ].join('\n');
    expect(() => load(bomb)).toThrow();
  });
});

describe('the schema of buildkit.yaml', () => {
  it('describes every key, so that the hint of a mistake can say what is wanted', () => {
    const { entries } = loadConfig(configSchema, { env: {}, envPrefix: 'BUILDKIT' });
    expect(entries.length).toBeGreaterThan(10);
    const json = z.toJSONSchema(configSchema, { io: 'input' });
    const undescribed: string[] = [];
    const walk = (node: { properties?: Record<string, unknown>; description?: string }, path: string): void => {
      if (!node.properties && !node.description) undescribed.push(path);
      for (const [key, child] of Object.entries(node.properties ?? {}))
        walk(child as never, path ? `${path}.${key}` : key);
    };
    walk(json as never, '');
    expect(undescribed).toEqual([]);
  });
});
