import { describe, expect, it } from 'vitest';
import { type Component, packageUrl, sbomText } from '../../../src/pkg/sbom.ts';

const subject = { name: 'python3-flask', version: '3.1.3-1~deb12', architecture: 'all', sha256: 'ab'.repeat(32) };
const flask: Component = {
  name: 'Flask',
  version: '3.1.3',
  purl: packageUrl('pypi', 'flask', '3.1.3'),
  licence: 'BSD-3-Clause',
  homepage: 'https://flask.example/',
  digest: { algorithm: 'sha256', hex: 'cd'.repeat(32) },
};

/** What the schema of SPDX 2.3 wants of every element, and that each reference leads somewhere. */
function check(text: string) {
  const document = JSON.parse(text);
  expect(document).toMatchObject({
    spdxVersion: 'SPDX-2.3',
    dataLicense: 'CC0-1.0',
    SPDXID: 'SPDXRef-DOCUMENT',
    documentNamespace: expect.stringMatching(/^https:\/\/[^\s#]+$/),
    creationInfo: { created: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/), creators: ['Tool: buildkit'] },
  });
  const ids = ['SPDXRef-DOCUMENT', ...document.packages.map((one: { SPDXID: string }) => one.SPDXID)];
  expect(new Set(ids).size).toBe(ids.length);
  for (const one of document.packages) {
    expect(one.SPDXID).toMatch(/^SPDXRef-[A-Za-z0-9.-]+$/);
    expect(one).toMatchObject({ name: expect.any(String), downloadLocation: 'NOASSERTION', filesAnalyzed: false });
    for (const { referenceLocator } of one.externalRefs)
      expect(referenceLocator).toMatch(/^pkg:(deb|pypi|npm)\/[^\s]+@[^\s]+$/);
  }
  for (const one of document.relationships) {
    expect(ids).toContain(one.spdxElementId);
    expect(ids).toContain(one.relatedSpdxElement);
  }
  return document;
}

describe('sbomText', () => {
  it('says what the package is and what it carries, the same bytes each time', () => {
    const text = sbomText(subject, [flask], 1_700_000_000, 'buildkit');
    expect(sbomText(subject, [flask], 1_700_000_000, 'buildkit')).toBe(text);
    const { packages, relationships } = check(text);
    expect(packages[0]).toMatchObject({
      versionInfo: '3.1.3-1~deb12',
      licenseDeclared: 'BSD-3-Clause',
      externalRefs: [{ referenceLocator: 'pkg:deb/debian/python3-flask@3.1.3-1~deb12?arch=all' }],
      checksums: [{ algorithm: 'SHA256', checksumValue: 'ab'.repeat(32) }],
    });
    expect(packages[1]).toMatchObject({ name: 'Flask', homepage: 'https://flask.example/' });
    expect(relationships).toEqual([
      { spdxElementId: 'SPDXRef-DOCUMENT', relationshipType: 'DESCRIBES', relatedSpdxElement: 'SPDXRef-Package' },
      { spdxElementId: 'SPDXRef-Package', relationshipType: 'CONTAINS', relatedSpdxElement: 'SPDXRef-Component-1' },
    ]);
  });

  it('takes SPDX expressions as they are and says other licences by reference', () => {
    const licences = [
      'MIT OR (Apache-2.0 AND ISC)',
      'Apache-2.0 WITH LLVM-exception',
      'BSD',
      'MIT AND',
      '(MIT',
      '',
      undefined,
    ];
    const components = licences.map((licence, index) => ({
      ...flask,
      purl: packageUrl('npm', '@a/b', String(index)),
      licence,
    }));
    const { packages, hasExtractedLicensingInfos } = check(sbomText(subject, components, 0, 'buildkit'));
    expect(packages.slice(1).map((one: { licenseDeclared: string }) => one.licenseDeclared)).toEqual([
      'MIT OR (Apache-2.0 AND ISC)',
      'Apache-2.0 WITH LLVM-exception',
      'LicenseRef-BSD',
      'LicenseRef-MIT-AND',
      'LicenseRef--MIT',
      'NOASSERTION',
      'NOASSERTION',
    ]);
    expect(hasExtractedLicensingInfos.map((one: { licenseId: string }) => one.licenseId)).toEqual([
      'LicenseRef-BSD',
      'LicenseRef-MIT-AND',
      'LicenseRef--MIT',
    ]);
  });

  it('escapes names in package URLs', () => {
    expect(packageUrl('npm', '@scope/name', '1.0.0+x')).toBe('pkg:npm/%40scope/name@1.0.0%2Bx');
  });
});
