import { describe, expect, it } from 'vitest';
import { parseControl } from '../../../src/deb/control.ts';
import type { Generation, Member } from '../../../src/repo/catalog.ts';
import { checkClosure } from '../../../src/repo/closure.ts';
import { expiredGenerations } from '../../../src/repo/gc.ts';
import { planRetention } from '../../../src/repo/retain.ts';
import { makeMember } from '../../support/members.ts';

const versions = (members: readonly Member[]) => members.map(({ package: item }) => `${item.name}=${item.version}`);

describe('retention', () => {
  it('keeps the newest as dpkg orders them, for each name and architecture', () => {
    const members = ['1.0', '1.0~rc1', '1.10', '1.9', '1:0.1'].map((version) => makeMember({ name: 'a', version }));
    const other = ['1.0', '2.0'].map((version) => makeMember({ name: 'a', version, architecture: 'amd64' }));
    expect(versions(planRetention([...members, ...other], { keep: 2 }))).toEqual(['a=1.0', 'a=1.0~rc1', 'a=1.9']);
    expect(planRetention(members, { keep: 5 })).toEqual([]);
  });

  it('counts source versions where asked', () => {
    const made = (name: string, version: string) =>
      makeMember({ name, version: `${version}+b1`, source: 's', fields: { Source: `s (${version})` } });
    const members = [made('a', '1.0'), made('a', '2.0'), made('b', '1.0'), made('c', '2.0')];
    expect(versions(planRetention(members, { keep: 1, bySource: true }))).toEqual(['a=1.0+b1', 'b=1.0+b1']);
  });
});

const DAY = 86_400;

function generation(suite: string, day: number, pinned = false): Generation {
  const id = `2026010${day}T000000Z`;
  return {
    id,
    suite,
    change: day,
    fingerprint: '',
    format: 1,
    date: day * DAY,
    validUntil: undefined,
    files: [],
    pinned,
  };
}

describe('generations', () => {
  const expired = (all: Generation[], now: number, keepDays = 2, keepGenerations = 2) => {
    const sorted = all.sort((a, b) => (a.id < b.id ? 1 : -1));
    return expiredGenerations(sorted, { keepDays, keepGenerations }, now * DAY).map(
      (one) => `${one.suite} ${one.change}`,
    );
  };

  it('expire some days after they were replaced, not after they were made', () => {
    const all = [1, 2, 3, 8].map((day) => generation('a', day));
    expect(expired(all, 9)).toEqual(['a 2', 'a 1']); // 3 was replaced on day 8
    expect(expired(all, 11)).toEqual(['a 2', 'a 1']); // 3 is one of the two latest
    expect(expired(all, 11, 2, 1)).toEqual(['a 3', 'a 2', 'a 1']);
    expect(expired(all, 4)).toEqual([]);
  });

  it('stay when pinned, or when a kept snapshot shows them', () => {
    const all = [generation('a', 1, true), generation('a', 2), generation('a', 3), generation('a', 4)];
    expect(expired([...all], 9, 0, 1)).toEqual(['a 3', 'a 2']);
    const both = [...all.slice(1), generation('b', 1), generation('b', 2), generation('b', 5)];
    expect(expired(both, 9, 0, 1)).toEqual(['a 3', 'a 2', 'b 1']);
  });
});

describe('closure', () => {
  const packages = (...members: Member[]) => members.map((member) => member.package);
  const app = makeMember({
    name: 'app',
    architecture: 'amd64',
    fields: { Depends: 'lib (>= 2), libc6 (>= 2.36), virtual' },
  });
  const oldLib = makeMember({ name: 'lib', version: '1.0' });
  const provider = makeMember({ name: 'real', fields: { Provides: 'virtual' } });
  const unmet = (request: Parameters<typeof checkClosure>[0]) =>
    checkClosure(request).map((problem) => /needs (.*), which/.exec(problem.message)?.[1]);

  it('leaves unknown names to the distribution, but not what the repository has in another version', () => {
    const suite = packages(app, oldLib, provider);
    expect(unmet({ suite, architectures: ['amd64'] })).toEqual(['lib (>= 2)']);
    expect(unmet({ suite: packages(app), architectures: ['amd64'] })).toEqual([]);
    expect(unmet({ suite: packages(app), architectures: ['amd64'], elsewhere: packages(oldLib) })).toEqual([
      'lib (>= 2)',
    ]);
    expect(unmet({ suite, architectures: ['arm64'] })).toEqual([]);
  });

  it('is strict where the distribution is known', () => {
    const base = parseControl('Package: libc6\nVersion: 2.36-9\nArchitecture: amd64\nMulti-Arch: same\n');
    expect(unmet({ suite: packages(app), architectures: ['amd64'], base })).toEqual(['lib (>= 2)', 'virtual']);
  });
});
