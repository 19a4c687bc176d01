/** Packages in suites, made of nothing, for tests of what works on them. */
import type { Member } from '../../src/repo/catalog.ts';

export interface MemberSpec {
  readonly name: string;
  readonly version?: string;
  readonly architecture?: string;
  readonly suite?: string;
  readonly component?: string;
  readonly source?: string;
  readonly fields?: Readonly<Record<string, string>>;
}

let lastId = 0;

export function makeMember(spec: MemberSpec): Member {
  const { name, version = '1.0', architecture = 'all', suite = 'bookworm', component = 'main', source = name } = spec;
  const fields = {
    Package: name,
    Version: version,
    Architecture: architecture,
    Description: `about ${name}`,
    ...spec.fields,
  };
  lastId += 1;
  return {
    suite,
    component,
    package: {
      id: lastId,
      kind: 'deb',
      name,
      version,
      architecture,
      source,
      filename: `pool/${component}/${name}_${version}_${architecture}.deb`,
      size: 1000,
      md5: 'm',
      sha1: 's',
      sha256: String(lastId),
      sha512: 's',
      control: Object.entries(fields)
        .map(([field, value]) => `${field}: ${value}\n`)
        .join(''),
    },
  };
}
