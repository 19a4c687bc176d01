import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { machine, tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { refuseForeign, refuseForeignHere } from '../../../../src/pkg/root/foreign.ts';

it('takes an architecture whose programs the kernel can start, and says the next step for others', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'buildkit-binfmt-'));
  try {
    const [other, emulator] = machine() === 'aarch64' ? ['ppc64el', 'qemu-ppc64le'] : ['arm64', 'qemu-aarch64'];
    const refusal = { code: 'foreign-architecture', hint: expect.stringContaining('qemu-user-static') };
    await expect(refuseForeign(other!, folder)).rejects.toMatchObject(refusal);
    await writeFile(join(folder, emulator!), 'disabled\ninterpreter /usr/bin/x\n');
    await expect(refuseForeign(other!, folder)).rejects.toMatchObject(refusal);
    await writeFile(join(folder, emulator!), 'enabled\ninterpreter /usr/bin/x\n');
    await refuseForeign(other!, folder);
    expect(() => refuseForeignHere(other)).toThrow(expect.objectContaining(refusal));
    refuseForeignHere(undefined);
  } finally {
    await rm(folder, { recursive: true });
  }
});
