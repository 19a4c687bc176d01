/** Small .deb files for tests. */
import { join } from 'node:path';
import type { Context } from '../../src/core/context.ts';
import { writeDeb } from '../../src/deb/archive.ts';
import { paragraph } from '../../src/deb/control.ts';
import { type BinaryPackage, debFileName } from '../../src/deb/package.ts';

export interface TestPackage {
  readonly name: string;
  /** Default '1.0'. */
  readonly version?: string;
  /** Default 'all'. */
  readonly architecture?: string;
  /** Further fields, or others in place of the usual ones. */
  readonly fields?: Readonly<Record<string, string>>;
  /** Content of /usr/share/NAME/data. */
  readonly data?: string;
}

/** Writes one package below `folder`, named as dpkg-deb would. */
export async function makePackage(context: Context, folder: string, spec: TestPackage): Promise<BinaryPackage> {
  const { name, version = '1.0', architecture = 'all' } = spec;
  const fields: Record<string, string> = {
    Package: name,
    Version: version,
    Architecture: architecture,
    Maintainer: 'Test <test@example.org>',
    Section: 'misc',
    Priority: 'optional',
    Description: `test package ${name}\n It holds one file.`,
    ...spec.fields,
  };
  const data = { data: spec.data ?? `${name} ${version}\n` };
  return writeDeb(
    context,
    join(folder, debFileName(name, version, architecture)),
    {
      control: paragraph(Object.entries(fields)),
      entries: [{ path: `/usr/share/${name}/data`, type: 'file', mode: 0o644, source: data }],
    },
    { compression: 'gzip', sourceDateEpoch: 1_700_000_000 },
  );
}
