import { describe, expect, it } from 'vitest';
import { parseParagraph } from '../../../src/deb/control.ts';
import { closureOf, readRecorded } from '../../../src/pkg/buildinfo.ts';

describe('what a .buildinfo records', () => {
  it('takes the tools and all that they depend on, as far as it is installed', () => {
    const line = (name: string, needs: string, status = 'installed') => `${name}\t1-${name}\t${status}\t${needs}`;
    const text = [
      line('dpkg', 'tar, , libc6 (>= 2)'),
      line('tar', ', libacl1 | gone, dpkg:any'),
      line('libc6', ', '),
      line('libacl1', ', ', 'config-files'),
      line('unrelated', ', '),
    ].join('\n');
    expect(closureOf(text.replace('tar, , libc6', 'tar, libc6'), ['dpkg', 'nowhere'])).toEqual({
      dpkg: '1-dpkg',
      tar: '1-tar',
      libc6: '1-libc6',
    });
  });

  it('gives the request back, and nothing for what another program wrote', () => {
    const info = (text: string) => parseParagraph(`Format: 1.0\nSource: x\n${text}`);
    expect(
      readRecorded(
        info(
          'Buildkit-Request:\n {"inputs":["flask"],"suite":"bookworm","policy":{}}\nBuildkit-Closure:\n pypi:flask==3\n',
        ),
      ),
    ).toEqual({ request: { inputs: ['flask'], suite: 'bookworm', policy: {} }, closure: ['pypi:flask==3'] });
    expect(readRecorded(info(''))).toBeUndefined();
    expect(readRecorded(info('Buildkit-Request:\n {"inputs":3}\n'))).toBeUndefined();
    expect(readRecorded(info('Buildkit-Request:\n {{{\n'))).toBeUndefined();
  });
});
