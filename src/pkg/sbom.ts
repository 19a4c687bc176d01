/**
 * The bill of materials of a package: what it is, and what of others it carries.
 *
 * Secret: SPDX 2.3 as JSON (spdx.github.io/spdx-spec/v2.3): identifiers, licence expressions (Annex D), package URLs.
 * The same package gives the same bytes: its date is the package's own.
 */
import type { BinaryPackage } from '../deb/package.ts';

/** A distribution, npm package or the like that is inside of a Debian package. */
export interface Component {
  readonly name: string;
  readonly version: string;
  /** 'pkg:pypi/flask@3.1.3' */
  readonly purl: string;
  /** As upstream says it: an SPDX expression, or any text. */
  readonly licence?: string | undefined;
  readonly homepage?: string | undefined;
  /** 'sha256' and hex digits. */
  readonly digest?: { readonly algorithm: 'sha1' | 'sha256' | 'sha512'; readonly hex: string } | undefined;
}

type SbomSubject = Pick<BinaryPackage, 'name' | 'version' | 'architecture' | 'sha256'>;

/** 'name' and 'version' as in purl-spec: everything but a few marks is escaped; a scope is a namespace. */
export function packageUrl(type: 'pypi' | 'npm', name: string, version: string): string {
  const path = name.split('/').map(encodeURIComponent).join('/');
  return `pkg:${type}/${path}@${encodeURIComponent(version)}`;
}

/** @param created seconds since the epoch */
export function sbomText(
  subject: SbomSubject,
  components: readonly Component[],
  created: number,
  tool: string,
): string {
  const licences = new Licences();
  const id = 'SPDXRef-Package';
  const debian = {
    name: subject.name,
    SPDXID: id,
    versionInfo: subject.version,
    downloadLocation: 'NOASSERTION',
    filesAnalyzed: false,
    licenseConcluded: 'NOASSERTION',
    licenseDeclared: licences.expression(components[0]?.licence),
    copyrightText: 'NOASSERTION',
    checksums: [{ algorithm: 'SHA256', checksumValue: subject.sha256 }],
    externalRefs: [reference(debianUrl(subject))],
  };
  const inside = components.map((one, index) => ({
    name: one.name,
    SPDXID: `SPDXRef-Component-${index + 1}`,
    versionInfo: one.version,
    downloadLocation: 'NOASSERTION',
    ...(one.homepage !== undefined && /^https?:\/\/\S+$/.test(one.homepage) ? { homepage: one.homepage } : {}),
    filesAnalyzed: false,
    licenseConcluded: 'NOASSERTION',
    licenseDeclared: licences.expression(one.licence),
    copyrightText: 'NOASSERTION',
    ...(one.digest === undefined
      ? {}
      : { checksums: [{ algorithm: one.digest.algorithm.toUpperCase(), checksumValue: one.digest.hex }] }),
    externalRefs: [reference(one.purl)],
  }));
  const relate = (from: string, relationshipType: string, to: string) => ({
    spdxElementId: from,
    relationshipType,
    relatedSpdxElement: to,
  });
  const document = {
    spdxVersion: 'SPDX-2.3',
    dataLicense: 'CC0-1.0',
    SPDXID: 'SPDXRef-DOCUMENT',
    name: `${subject.name}_${subject.version}_${subject.architecture}`,
    documentNamespace: `https://spdx.org/spdxdocs/${encodeURIComponent(`${subject.name}-${subject.version}`)}-${subject.sha256}`,
    creationInfo: {
      created: new Date(created * 1000).toISOString().replace('.000Z', 'Z'),
      creators: [`Tool: ${tool}`],
    },
    packages: [debian, ...inside],
    ...licences.extracted(),
    relationships: [
      relate('SPDXRef-DOCUMENT', 'DESCRIBES', id),
      ...inside.map((one) => relate(id, 'CONTAINS', one.SPDXID)),
    ],
  };
  return `${JSON.stringify(document, undefined, 2)}\n`;
}

function reference(purl: string) {
  return { referenceCategory: 'PACKAGE-MANAGER', referenceType: 'purl', referenceLocator: purl };
}

function debianUrl({ name, version, architecture }: SbomSubject): string {
  return `pkg:deb/debian/${encodeURIComponent(name)}@${encodeURIComponent(version)}?arch=${architecture}`;
}

/** Of the SPDX licence list, those that packages are published under. Others are said as a reference with their text. */
const KNOWN = new Set(
  `0BSD AFL-2.1 AFL-3.0 AGPL-3.0-only AGPL-3.0-or-later Apache-2.0 Artistic-2.0 BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause
  BSD-2-Clause-Patent BSD-3-Clause BSD-3-Clause-Clear BSD-4-Clause BSL-1.0 CC-BY-3.0 CC-BY-4.0 CC-BY-SA-4.0 CC0-1.0 CDDL-1.0 curl
  EPL-1.0 EPL-2.0 EUPL-1.2 GPL-2.0-only GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later HPND HPND-Markus-Kuhn IJG ISC LGPL-2.1-only
  LGPL-2.1-or-later LGPL-3.0-only LGPL-3.0-or-later MIT MIT-0 MIT-CMU MPL-1.1 MPL-2.0 NCSA OFL-1.1 OpenSSL PSF-2.0 Python-2.0
  Python-2.0.1 TCL Unicode-3.0 Unicode-DFS-2016 Unlicense Vim W3C WTFPL Zlib ZPL-2.1`.split(/\s+/),
);
const EXCEPTIONS = new Set(
  'Bison-exception-2.2 Classpath-exception-2.0 GCC-exception-3.1 LLVM-exception OpenSSL-exception'.split(' '),
);

/** Licences of one document: those outside of SPDX's list are said once, at its end. */
class Licences {
  readonly #own = new Map<string, string>();

  /** Annex D; NOASSERTION where upstream says nothing. */
  expression(licence: string | undefined): string {
    const text = licence?.replaceAll(/[\s\u0000-\u001f\u007f]+/g, ' ').trim() ?? '';
    if (text === '') return 'NOASSERTION';
    return isExpression(text) ? text : this.#reference(text);
  }

  #reference(text: string): string {
    const plain = text.replaceAll(/[^\w.-]+/g, '-').slice(0, 60);
    const id = `LicenseRef-${/\w/.test(plain) ? plain : 'other'}`;
    this.#own.set(id, text);
    return id;
  }

  extracted(): object {
    if (this.#own.size === 0) return {};
    const infos = [...this.#own].map(([licenseId, text]) => ({
      licenseId,
      name: licenseId.slice(11),
      extractedText: text,
    }));
    return { hasExtractedLicensingInfos: infos };
  }
}

/** Licences, joined by AND and OR and grouped by parentheses; `WITH` binds an exception to one. */
function isExpression(text: string): boolean {
  const words = text.replaceAll('(', ' ( ').replaceAll(')', ' ) ').trim().split(/\s+/);
  let depth = 0;
  let wantsOperand = true;
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at]!;
    if (word === '(' && wantsOperand) depth += 1;
    else if (word === ')' && !wantsOperand && depth > 0) depth -= 1;
    else if ((word === 'AND' || word === 'OR') && !wantsOperand) wantsOperand = true;
    else if (wantsOperand && KNOWN.has(word.replace(/\+$/, ''))) {
      wantsOperand = false;
      if (words[at + 1] === 'WITH' && EXCEPTIONS.has(words[at + 2] ?? '')) at += 2;
    } else return false;
  }
  return depth === 0 && !wantsOperand;
}
