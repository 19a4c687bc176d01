import { describe, expect, it } from 'vitest';
import { parseIndexTargets } from '../../../src/deb/apt-targets.ts';
import { planSources } from '../../../src/deb/mirror.ts';

const TARGETS = parseIndexTargets(
  [
    'http://deb.example/debian/|bookworm|bookworm|Debian|main',
    'http://deb.example/debian/|bookworm|bookworm|Debian|contrib',
    'http://deb.example/debian/|bookworm-updates|bookworm-updates|Debian|main',
    'http://sec.example/debian-security/|stable-security|bookworm-security|Debian|main',
    'http://deb.example/debian/|bookworm-backports|bookworm-backports|Debian|main',
    'https://other.example/|nodistro|nodistro|Other|main',
    '',
  ].join('\n'),
);

const brief = (suite: string, ...rest: [typeof TARGETS?, string?]) =>
  planSources(suite, rest[0] ?? TARGETS, rest[1]).map(({ uris, suites, components }) =>
    [...uris, ...suites, '/', ...components].join(' '),
  );

describe('planSources', () => {
  it("takes this machine's Debian mirrors, and of them only what a plain machine has", () => {
    expect(brief('bookworm')).toEqual([
      'http://deb.example/debian/ bookworm bookworm-updates / main',
      'http://sec.example/debian-security/ bookworm-security / main',
    ]);
  });

  it('turns them to another suite', () => {
    expect(brief('trixie')).toEqual([
      'http://deb.example/debian/ trixie trixie-updates / main',
      'http://sec.example/debian-security/ trixie-security / main',
    ]);
    expect(brief('sid')).toEqual(['http://deb.example/debian/ sid / main']);
  });

  it('goes by the name of the suite before the first apt-get update', () => {
    const fresh = parseIndexTargets('http://deb.example/debian/|bookworm|$(CODENAME)|$(ORIGIN)|main\n');
    expect(brief('bookworm', fresh)).toEqual(['http://deb.example/debian/ bookworm / main']);
  });

  it('takes the mirror that the user names, and nothing else', () => {
    expect(brief('bookworm', [], 'http://m.example/debian')).toEqual([
      'http://m.example/debian/ bookworm bookworm-updates / main',
    ]);
  });

  it('signs all of them with the keyring of Debian', () => {
    for (const source of planSources('bookworm', TARGETS)) {
      expect(source.signedBy).toBe('/usr/share/keyrings/debian-archive-keyring.gpg');
    }
  });

  it('says what to do without a mirror, with a bad one, with an unknown suite', () => {
    expect(() => brief('bookworm', [])).toThrowError(expect.objectContaining({ code: 'mirror-unknown' }));
    expect(() => brief('bookworm', [], 'ftp//x')).toThrowError(expect.objectContaining({ code: 'mirror-unknown' }));
    expect(() => brief('bookwurm')).toThrowError(expect.objectContaining({ code: 'unknown-suite' }));
  });
});
