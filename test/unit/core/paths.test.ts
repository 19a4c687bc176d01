import { describe, expect, it } from 'vitest';
import { choosePlaces } from '../../../src/core/paths.ts';

const facts = { env: {}, uid: 1000, home: '/home/me', programDir: '/home/me/buildkit', cwd: '/home/me/w' };

describe('where state is kept', () => {
  it('is the flag, then the environment', () => {
    const env = { BUILDKIT_STATE: 'elsewhere' };
    expect(choosePlaces({ ...facts, env, stateFlag: 's' })).toEqual({
      stateDir: '/home/me/w/s',
      cacheDir: '/home/me/w/s/cache',
      origin: 'flag --state',
    });
    expect(choosePlaces({ ...facts, env, stateOfWorkspace: '/ws/state' }).stateDir).toBe('/home/me/w/elsewhere');
    expect(choosePlaces({ ...facts, stateOfWorkspace: '/ws/state' })).toMatchObject({
      stateDir: '/ws/state',
      origin: 'buildkit.yaml',
    });
  });

  it('is /var/lib/buildkit only for root with an installed buildkit', () => {
    expect(choosePlaces({ ...facts, uid: 0, programDir: '/usr/lib/buildkit' })).toMatchObject({
      stateDir: '/var/lib/buildkit',
      cacheDir: '/var/cache/buildkit',
    });
    expect(choosePlaces({ ...facts, uid: 0 }).stateDir).toBe('/home/me/.local/state/buildkit');
    expect(choosePlaces({ ...facts, programDir: '/usr/lib/buildkit' }).stateDir).toBe('/home/me/.local/state/buildkit');
  });

  it('follows the XDG variables, absolute ones only', () => {
    const places = choosePlaces({ ...facts, env: { XDG_STATE_HOME: '/x', XDG_CACHE_HOME: 'relative' } });
    expect(places).toMatchObject({ stateDir: '/x/buildkit', cacheDir: '/home/me/.cache/buildkit' });
  });
});
