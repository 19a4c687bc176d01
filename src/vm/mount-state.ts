/**
 * Whether the disk of a machine is mounted: it must not be started or changed then.
 *
 * Secret: the record of it, `mount.json` in the machine's folder, which is there from before the mount until after the umount.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../core/errors.ts';
import { readIfThere } from '../core/files.ts';

export const MOUNT_RECORD = 'mount.json';
const schema = z.object({ dir: z.string() });

/** @param dir of the machine */
export async function mountedAt(dir: string): Promise<string | undefined> {
  const text = await readIfThere(join(dir, MOUNT_RECORD));
  return text === undefined ? undefined : schema.parse(JSON.parse(text)).dir;
}

/** @throws UserError `vm-mounted` */
export async function refuseMounted(name: string, dir: string): Promise<void> {
  const at = await mountedAt(dir);
  if (at === undefined) return;
  throw new UserError('vm-mounted', `the disk of machine '${name}' is mounted at '${at}'`, {
    hint: `give it back first: buildkit vm umount ${name}`,
  });
}
