import { describe, expect, it } from 'vitest';
import { maintainerScripts } from '../../../src/pkg/scripts.ts';

describe('maintainerScripts', () => {
  it('has nothing for a package that needs nothing', () => {
    expect(maintainerScripts({ packageName: 'x', python: 'none', units: [], stateDirs: [] })).toEqual({});
  });

  it('byte-compiles Python and cleans up', () => {
    const scripts = maintainerScripts({ packageName: 'python3-x', python: 'public', units: [], stateDirs: [] });
    expect(Object.keys(scripts)).toEqual(['postinst', 'prerm']);
    expect(scripts.postinst).toContain('py3compile -p python3-x');
    expect(scripts.prerm).toContain('py3clean -p python3-x');
  });

  it('does a service in the right order: user, modules, unit; stop before the modules go', () => {
    const scripts = maintainerScripts({
      packageName: 'x',
      python: 'public',
      user: 'x',
      units: ['x.service', 'x.timer', 't@.service'],
      stateDirs: ['/var/lib/x'],
    });
    const order = (text: string, ...parts: string[]) => parts.map((part) => text.indexOf(part));
    const postinst = order(
      scripts.postinst!,
      'adduser',
      'py3compile',
      'deb-systemd-helper enable x.service',
      'deb-systemd-invoke $action',
    );
    expect(postinst).toEqual(postinst.toSorted((a, b) => a - b));
    expect(postinst).not.toContain(-1);
    expect(scripts.postinst).toContain('deb-systemd-invoke $action x.service x.timer >');
    const prerm = order(scripts.prerm!, 'deb-systemd-invoke stop x.service x.timer', 'py3clean');
    expect(prerm).toEqual(prerm.toSorted((a, b) => a - b));
    expect(prerm).not.toContain(-1);
    expect(scripts.postrm).toContain('deb-systemd-helper purge x.service x.timer t@.service');
    expect(scripts.postrm).toContain('rm -rf /var/lib/x\n');
    expect(scripts.postrm).toContain('deluser --system --quiet x');
    for (const text of Object.values(scripts)) {
      expect(text).toMatch(/^#!\/bin\/sh\nset -e\n/);
      for (const line of text.matchAll(/if (.*deb-systemd-invoke|.*\/run\/systemd\/system.*)/g))
        expect(line[1]).toContain('DPKG_ROOT');
    }
  });
});
