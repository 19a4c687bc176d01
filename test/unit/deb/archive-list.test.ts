import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { listDeb, listDebs, writeDeb } from '../../../src/deb/archive.ts';
import { paragraph } from '../../../src/deb/control.ts';
import { createWorld } from '../../support/world.ts';

describe('listDebs', () => {
  it('says of each package what listDeb says, small or large, whatever compresses it', async () => {
    await using world = await createWorld();
    const paths: string[] = [];
    for (const compression of ['xz', 'gzip', 'none'] as const) {
      for (const count of [0, 3, 9000]) {
        const name = `pkg-${compression}-${count}`;
        const path = join(world.path, `${name}.deb`);
        const fields: [string, string][] = [
          ['Package', name],
          ['Version', '1'],
          ['Architecture', 'all'],
          ['Maintainer', 'T <t@example.org>'],
          ['Description', 'x'],
        ];
        const entries = Array.from({ length: count }, (_, at) => ({
          path: `/usr/share/${name}/${at}`,
          type: 'file' as const,
          mode: 0o644,
          source: { data: `${at}` },
        }));
        await writeDeb(
          world.context,
          path,
          { control: paragraph(fields), entries },
          { compression, sourceDateEpoch: 1 },
        );
        paths.push(path);
      }
    }
    const listed = await Array.fromAsync(listDebs(world.context, paths));
    expect(listed.map((one) => one.path)).toEqual(paths);
    for (const { path, files } of listed) expect(files).toEqual(await Array.fromAsync(listDeb(world.context, path)));
    await expect(Array.fromAsync(listDebs(world.context, [import.meta.filename]))).rejects.toMatchObject({
      exitCode: 1,
    });
  });
});
