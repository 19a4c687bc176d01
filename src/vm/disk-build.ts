/** A Debian system built straight onto a disk that boots by itself: `vm base build --target`. */
import type { Context } from '../core/context.ts';
import { type BaseRequest, withRoot } from './base.ts';
import { noteElsewhere } from './base-root.ts';
import { planDisk, type WrittenDisk, writeDisk } from './disk.ts';
import type { DiskTarget } from './disk-target.ts';
import { parseSize } from './size.ts';

export interface DiskBuildRequest extends BaseRequest {
  readonly target: DiskTarget;
  /** `512M`; none when absent. */
  readonly swap?: string | undefined;
  readonly uefi?: boolean | undefined;
}

/**
 * Builds and writes. The target is looked at before anything is built, and written when everything else has succeeded.
 * @throws as `buildBase` and `writeDisk` do
 */
export async function buildDisk(context: Context, request: DiskBuildRequest): Promise<WrittenDisk> {
  const disk = {
    target: request.target,
    sizeBytes: request.size === undefined ? undefined : parseSize(request.size),
    swapBytes: request.swap === undefined ? 0 : parseSize(request.swap),
    uefi: request.uefi ?? false,
    force: request.force ?? false,
    hostname: request.name,
  };
  await planDisk(context, disk);
  // the root's own size is that of the disk: what the recipe says of it is not used
  const { size: _whole, ...recipe } = request;
  // not a machine for tests: nothing is taken from it
  return withRoot(context, { ...recipe, profile: 'plain' }, ({ root, owner, scratch }) => {
    const onScratch = (folder: string) => noteElsewhere(scratch, folder);
    return context.log.step('Write the disk', () => writeDisk(context, { ...disk, root, wrap: owner.wrap, onScratch }));
  });
}
