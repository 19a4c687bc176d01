import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { layOut, withInterpreter } from '../../../../src/pkg/python/layout.ts';
import { openWheel } from '../../../../src/pkg/python/wheel.ts';
import { writeWheel } from '../../../support/python-wheel.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'buildkit-layout-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

describe('layOut', () => {
  it('puts every part of a wheel where Debian has it', async () => {
    const path = await writeWheel(folder, {
      name: 'demo',
      version: '1.0',
      files: {
        'demo/__init__.py': '',
        'demo/__pycache__/x.cpython-311.pyc': 'no',
        'demo.pth': 'import x',
        'demo-1.0.data/purelib/pure.py': '',
        'demo-1.0.data/platlib/plat.py': '',
        'demo-1.0.data/scripts/demo-run': '#!python\nprint(1)\n',
        'demo-1.0.data/headers/demo.h': '',
        'demo-1.0.data/data/etc/demo.conf': 'a=1\n',
        'demo-1.0.data/data/share/man/man1/demo.1': '.TH demo 1\n',
        'demo-1.0.data/data/share/demo/x.txt': '',
        'demo-1.0.data/nonsense/x': '',
        'demo-1.0.dist-info/INSTALLER': 'pip\n',
        'demo-1.0.dist-info/direct_url.json': '{}',
        'demo-1.0.dist-info/licenses/LICENSE': 'MIT',
        'demo-1.0.dist-info/entry_points.txt':
          '[console_scripts]\ndemo = demo.cli:main\ntwo=demo.cli:App.run [x]\n[other]\nno = a:b\n',
      },
    });
    using wheel = await openWheel(path);
    const entries = await layOut(wheel, { pythonVersion: '3.11', sourceDateEpoch: 1_700_000_000 });
    const dist = '/usr/lib/python3/dist-packages';
    expect(entries.map((entry) => entry.path).sort()).toEqual([
      '/etc/demo.conf',
      '/usr/bin/demo',
      '/usr/bin/demo-run',
      '/usr/bin/two',
      '/usr/include/python3.11/demo/demo.h',
      `${dist}/demo-1.0.dist-info/INSTALLER`,
      `${dist}/demo-1.0.dist-info/METADATA`,
      `${dist}/demo-1.0.dist-info/WHEEL`,
      `${dist}/demo-1.0.dist-info/entry_points.txt`,
      `${dist}/demo-1.0.dist-info/licenses/LICENSE`,
      `${dist}/demo.pth`,
      `${dist}/demo/__init__.py`,
      `${dist}/plat.py`,
      `${dist}/pure.py`,
      '/usr/share/demo/x.txt',
      '/usr/share/man/man1/demo.1.gz',
    ]);
    const text = (path: string) =>
      Buffer.from((entries.find((one) => one.path === path)!.source as { data: Uint8Array | string }).data).toString();
    expect(text('/usr/bin/demo-run')).toBe('#!/usr/bin/python3\nprint(1)\n');
    expect(text('/usr/bin/two')).toContain(
      'from demo.cli import App\nif __name__ == "__main__":\n    sys.exit(App.run())',
    );
    expect(text(`${dist}/demo-1.0.dist-info/INSTALLER`)).toBe('debian\n');
    const manual = entries.find((one) => one.path.endsWith('.1.gz'))!.source as { data: Buffer };
    expect(gunzipSync(manual.data).toString()).toBe('.TH demo 1\n');
    const modes = entries.filter((entry) => entry.mode === 0o755).map((entry) => entry.path);
    expect(modes.sort()).toEqual(['/usr/bin/demo', '/usr/bin/demo-run', '/usr/bin/two']);
    expect(entries.filter((entry) => entry.conffile).map((entry) => entry.path)).toEqual(['/etc/demo.conf']);
  });

  it('keeps a program in a package executable, but neither a library nor a text', async () => {
    const elf = Buffer.concat([Buffer.from('\x7fELF'), Buffer.alloc(60)]);
    const mode = 0o100755;
    const path = await writeWheel(folder, {
      name: 'demo',
      version: '1.0',
      record: '',
      extra: [],
      files: {},
    }).then(() =>
      writeWheel(folder, {
        name: 'demo',
        version: '1.0',
        record: [
          'demo/bin/tool,,',
          'demo/x.so,,',
          'demo/notes.txt,,',
          'demo-1.0.dist-info/METADATA,,',
          'demo-1.0.dist-info/WHEEL,,',
        ].join('\n'),
        extra: [
          { name: 'demo/bin/tool', data: elf, mode },
          { name: 'demo/x.so', data: elf, mode },
          { name: 'demo/notes.txt', data: 'x', mode },
        ],
      }),
    );
    using wheel = await openWheel(path);
    const entries = await layOut(wheel, { pythonVersion: '3.11', sourceDateEpoch: 0 });
    expect(entries.filter((entry) => entry.mode === 0o755).map((entry) => entry.path)).toEqual([
      '/usr/lib/python3/dist-packages/demo/bin/tool',
    ]);
  });
});

describe('withInterpreter', () => {
  it.each([
    ['#!python\nx', '#!/usr/bin/python3\nx'],
    ['#!pythonw\n', '#!/usr/bin/python3\n'],
    ['#!/usr/bin/env python3\nx', '#!/usr/bin/python3\nx'],
    ['#!/usr/bin/env python3.12 -E\nx', '#!/usr/bin/python3 -E\nx'],
    ['#! /opt/x/bin/python3.9\r\nx', '#!/usr/bin/python3\nx'],
    ['#!/bin/sh\nx', '#!/bin/sh\nx'],
    ['#!/usr/bin/env pythonista\nx', '#!/usr/bin/env pythonista\nx'],
    ['no line', 'no line'],
  ])('%j becomes %j', (before, after) => {
    expect(withInterpreter(Buffer.from(before)).toString()).toBe(after);
  });
});
