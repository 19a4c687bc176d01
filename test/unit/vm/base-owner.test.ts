import { describe, expect, it } from 'vitest';
import { ownerOf } from '../../../src/vm/base-owner.ts';

const DIES = 'setpriv --pdeathsig KILL --';
const USER = 'unshare --user --map-root-user --map-auto --';
const ALONE = 'unshare --mount --pid --fork --kill-child --mount-proc --';

describe('ownerOf', () => {
  it('lets nothing outlive buildkit, and encloses mounts and processes', () => {
    expect(ownerOf(false).wrap(['tar', '-x']).join(' ')).toBe(`${DIES} tar -x`);
    expect(ownerOf(false).enclose(['tar', '-x']).join(' ')).toBe(`${DIES} ${ALONE} tar -x`);
  });

  it('takes a user namespace first where it is not root: that forgets the signal', () => {
    expect(ownerOf(true).wrap(['true']).join(' ')).toBe(`${USER} ${DIES} true`);
    expect(ownerOf(true).enclose(['true']).join(' ')).toBe(`${USER} ${DIES} ${ALONE} true`);
  });
});
