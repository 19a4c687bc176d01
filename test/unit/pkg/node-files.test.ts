/** Files of npm packages as Debian takes them. */
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { suiteFacts } from '../../../src/deb/suites.ts';
import { isForeignPrebuild, packageFiles, withInterpreter } from '../../../src/pkg/node/files.ts';
import { listTakes, nodeTarget } from '../../../src/pkg/node/target.ts';

const target = nodeTarget(suiteFacts('bookworm'), 'amd64');

describe('interpreters', () => {
  const first = (line: string, isProgram = true) => {
    const { data, runs } = withInterpreter(Buffer.from(`${line}\nrest\n`), isProgram);
    return [data.toString().split('\n')[0], runs];
  };

  it.each([
    ['#!/usr/bin/env node', '#!/usr/bin/node'],
    ['#! /usr/bin/env node', '#!/usr/bin/node'],
    ['#!/usr/local/bin/node', '#!/usr/bin/node'],
    ['#!/usr/bin/env nodejs', '#!/usr/bin/node'],
    ['#!/usr/bin/env node\r', '#!/usr/bin/node'],
    ['#!/usr/bin/env -S node --no-warnings', '#!/usr/bin/node --no-warnings'],
    ['#!/usr/bin/env -S node --a --b', '#!/usr/bin/env -S node --a --b'],
    ['#!/usr/bin/env bash', '#!/bin/bash'],
    ['#!/usr/bin/env sh -e', '#!/bin/sh -e'],
    ['#!/usr/bin/python3', '#!/usr/bin/python3'],
  ])('%s becomes %s', (line, wanted) => {
    expect(first(line)).toEqual([wanted, true]);
  });

  it('keeps the rest of the file byte for byte', () => {
    const rest = Buffer.from([10, 0xff, 0xfe, 13, 10]);
    const { data } = withInterpreter(Buffer.concat([Buffer.from('#!/usr/bin/env node'), rest]), true);
    expect(data.subarray(data.indexOf(10))).toEqual(rest);
  });

  it('takes a program without such a line for JavaScript, and nothing else', () => {
    expect(withInterpreter(Buffer.from('x()\n'), true).data.toString()).toBe('#!/usr/bin/node\nx()\n');
    expect(withInterpreter(Buffer.from('x()\n'), false)).toMatchObject({ runs: false });
  });

  it('does not let scripts of other languages be programs, unless they are named as such', () => {
    expect(first('#!/usr/bin/env python3', false)).toEqual(['#!/usr/bin/env python3', false]);
  });
});

describe('platforms', () => {
  it.each([
    ['prebuilds/linux-x64/node.napi.node', false],
    ['prebuilds/linux-arm64/node.napi.node', true],
    ['prebuilds/darwin-x64+arm64/node.napi.node', true],
    ['prebuilds/win32-ia32/x.node', true],
    ['lib/prebuilds/linux-x64/x.musl.node', true],
    ['prebuilds/README.md', false],
    ['lib/index.js', false],
  ])('%s is for another machine: %s', (path, foreign) => {
    expect(isForeignPrebuild(path, target)).toBe(foreign);
  });

  it.each([
    [undefined, true],
    [['x64', 'arm64'], true],
    [['arm64'], false],
    [['!x64'], false],
    [['!arm64'], true],
    ['x64', true],
    [['any'], true],
    [[], true],
  ])('%j takes x64: %s', (list, takes) => {
    expect(listTakes(list, 'x64')).toBe(takes);
  });

  it('knows the words of each architecture, and refuses those without Node', () => {
    expect(nodeTarget(suiteFacts('trixie'), 'armhf')).toMatchObject({
      cpu: 'arm',
      nodeVersion: expect.stringMatching(/^20\./),
    });
    expect(() => nodeTarget(suiteFacts('bookworm'), 'hppa')).toThrow(
      expect.objectContaining({ code: 'unknown-architecture' }),
    );
  });
});

describe('the files of a package', () => {
  let folder: string;
  const put = async (path: string, content: string | Buffer, mode = 0o644) => {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), content);
    await chmod(join(folder, path), mode);
  };
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'node-files-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it('have modes that fit what they are, whatever the tarball said', async () => {
    await put('cli.js', '#!/usr/bin/env node\n');
    await put('data.json', '{}', 0o777);
    await put('tool.sh', '#!/bin/sh\n', 0o700);
    await put('secret.js', '1', 0o600);
    const files = await packageFiles(folder, new Set(['cli.js']), target);
    expect(files.map((file) => [file.path, file.mode])).toEqual([
      ['cli.js', 0o755],
      ['data.json', 0o644],
      ['secret.js', 0o644],
      ['tool.sh', 0o755],
    ]);
  });

  it('leave out other packages, notes of their makers and programs of other machines', async () => {
    await put('index.js', '1');
    await put('node_modules/other/index.js', '1');
    await put('test/fixtures/node_modules/kept.js', '1');
    await put('templates/.eslintrc', '{}');
    for (const note of [
      '.npmignore',
      '.github/x.yml',
      'yarn.lock',
      '.eslintrc.json',
      'spec/.eslintrc.yml',
      '.travis.yml',
    ])
      await put(note, 'x');
    await put('prebuilds/darwin-arm64/x.node', 'x');
    await put('windows.node', Buffer.concat([Buffer.from('MZ'), Buffer.alloc(200)]));
    const arm = Buffer.alloc(64);
    arm.writeUInt32BE(0x7f454c46);
    arm.writeUInt16LE(183, 18);
    await put('arm.node', arm, 0o755);
    const files = await packageFiles(folder, new Set(), target);
    expect(files.map((file) => file.path)).toEqual([
      'index.js',
      'templates/.eslintrc',
      'test/fixtures/node_modules/kept.js',
    ]);
  });

  it('say which are for one machine, and which for one Node', async () => {
    const elf = Buffer.alloc(64);
    elf.writeUInt32BE(0x7f454c46);
    elf.writeUInt16LE(62, 18);
    await put('napi.node', Buffer.concat([elf, Buffer.from('napi_register_module_v1')]), 0o755);
    await put('v8.node', Buffer.concat([elf, Buffer.from('_ZN2v87Isolate')]), 0o755);
    await put('bin/tool', elf, 0o755);
    const files = await packageFiles(folder, new Set(), target);
    expect(files.map(({ path, mode, native, tied }) => [path, mode, native, tied])).toEqual([
      ['bin/tool', 0o755, true, false],
      ['napi.node', 0o644, true, false],
      ['v8.node', 0o644, true, true],
    ]);
  });
});
