/** The past of a project from the tags of git. */
import { describe, expect, it } from 'vitest';
import { parseChangelog } from '../../../src/deb/changelog.ts';
import { changesOfLog } from '../../../src/pkg/project-changelog.ts';

const now = { name: 'thing', version: '1.3.0' };
const commit = (subject: string, tag = '', by = 'Ada <ada@debian.org>', parents = 'a') =>
  `\x01${tag && `tag: refs/tags/${tag}`}\0${by}\0${1_700_000_000}\0${parents}\0${subject}\n`;

describe('the log of git', () => {
  it('is an entry for each tag that names a version, and what came since for the version that is built', () => {
    const log = [
      commit('Mend the end'),
      commit('Merge branch x', '', 'Ada <ada@debian.org>', 'a b'),
      commit('Tagged above', 'v1.3.0'),
      commit('Second', 'release-1.2, tag: refs/tags/later'),
      commit('Note', 'milestone'),
      commit('First', 'v1.0-rc1'),
    ].join('');
    const { changes, older } = changesOfLog(log, now);
    expect(changes).toEqual(['Mend the end', 'Tagged above']);
    expect(older).toBe(`thing (1.2) unstable; urgency=medium

  * Second
  * Note

 -- Ada <ada@debian.org>  Tue, 14 Nov 2023 22:13:20 +0000

thing (1.0~rc1) unstable; urgency=medium

  * First

 -- Ada <ada@debian.org>  Tue, 14 Nov 2023 22:13:20 +0000
`);
    expect(parseChangelog(older).map((one) => one.version)).toEqual(['1.2', '1.0~rc1']);
  });

  it('takes a tag on the newest commit for the version that is built, however it is spelt', () => {
    expect(changesOfLog(commit('Only', 'v1.3.0-final'), now)).toEqual({ changes: ['Only'], older: '' });
  });

  it('leaves out who cannot stand in a changelog, control characters, and what is too much', () => {
    const many = Array.from({ length: 45 }, (_, index) => commit(`c${index}\x1b[31m`)).join('');
    const { changes, older } = changesOfLog(`${many}${commit('x', '1.1', 'nobody')}`, now);
    expect(changes.slice(-2)).toEqual(['c39 [31m', 'And 5 more changes.']);
    expect(older).toBe('');
  });
});
