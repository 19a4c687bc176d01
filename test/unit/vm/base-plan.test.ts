import { describe, expect, it } from 'vitest';
import { planSources } from '../../../src/deb/mirror.ts';
import {
  chooseKernel,
  mke2fsArgs,
  mmdebstrapArgs,
  planRecipe,
  recipeDigest,
  sourcesFile,
  stageArgs,
} from '../../../src/vm/base-plan.ts';

const sources = planSources('bookworm', [], 'http://m.example/debian');
const request = { suite: 'bookworm', architecture: 'amd64' };
const recipe = planRecipe(request, sources);

describe('planRecipe', () => {
  it('holds what a machine needs, sorted, each once', () => {
    expect(planRecipe({ ...request, include: ['curl', 'dbus', 'curl'] }, sources).packages).toEqual([
      'ca-certificates',
      'curl',
      'dbus',
      'iproute2',
      'linux-image-cloud-amd64',
      'netbase',
      'openssh-server',
      'systemd-sysv',
      'udev',
    ]);
    expect(recipe.sizeBytes).toBe(8 * 2 ** 30);
  });

  it('has the same digest for the same wishes, another for others', () => {
    expect(recipeDigest(planRecipe(request, sources))).toBe(recipeDigest(recipe));
    const others = [
      planRecipe({ ...request, size: '4G' }, sources),
      planRecipe({ ...request, include: ['curl'] }, sources),
      planRecipe({ ...request, suite: 'trixie' }, sources),
      planRecipe(request, planSources('bookworm', [], 'http://n.example/debian')),
    ];
    expect(new Set([recipe, ...others].map(recipeDigest)).size).toBe(5);
  });

  it.each([
    [{ ...request, size: '1M' }, 'size'],
    [{ ...request, size: 'huge' }, 'size'],
    [{ ...request, suite: 'bookwurm' }, 'unknown-suite'],
    [{ ...request, architecture: 'm68k' }, 'vm-architecture'],
    [{ ...request, include: ['--hook=x'] }, 'package-name'],
    [{ ...request, include: ['a,b'] }, 'package-name'],
  ])('refuses %o', (wrong, code) => {
    expect(() => planRecipe(wrong, sources)).toThrowError(expect.objectContaining({ code }));
  });
});

describe('command lines', () => {
  it('bootstraps a folder', () => {
    const places = { root: '/s/root', hookFile: '/s/hook.sh', sourcesFile: '/s/build.sources' };
    expect(mmdebstrapArgs(recipe, places)).toEqual([
      '--mode=root',
      '--variant=minbase',
      '--format=directory',
      '--architectures=amd64',
      `--include=${recipe.packages.join(',')}`,
      '--skip=cleanup/apt/lists',
      '--customize-hook=/s/hook.sh',
      'bookworm',
      '/s/root',
      '/s/build.sources',
    ]);
    expect(stageArgs(recipe, places)).toEqual([
      '--quiet',
      '--mode=root',
      '--variant=custom',
      '--format=directory',
      '--architectures=amd64',
      '--skip=check/empty,check/signed-by,setup,update,cleanup',
      '--customize-hook=/s/hook.sh',
      'bookworm',
      '/s/root',
      '/s/build.sources',
    ]);
    expect(sourcesFile(recipe)).toContain('URIs: http://m.example/debian/\nSuites: bookworm bookworm-updates\n');
  });

  it('writes a file system in units of 1 kB', () => {
    expect(mke2fsArgs('/root', '/disk', 'uuid', 2 ** 30).slice(-4)).toEqual(['-d', '/root', '/disk', '1048576k']);
  });
});

describe('chooseKernel', () => {
  it('takes the newest that has an initrd, by number', () => {
    const names = ['vmlinuz-6.1.0-9-amd64', 'initrd.img-6.1.0-9-amd64', 'vmlinuz-6.1.0-10-amd64'];
    expect(chooseKernel(names).release).toBe('6.1.0-9-amd64');
    expect(chooseKernel([...names, 'initrd.img-6.1.0-10-amd64']).release).toBe('6.1.0-10-amd64');
  });

  it('says when there is none', () => {
    expect(() => chooseKernel(['config-6.1'])).toThrowError(expect.objectContaining({ code: 'base-no-kernel' }));
  });
});
