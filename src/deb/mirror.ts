/**
 * Where a new Debian's packages come from (base images, build roots): the mirrors that this machine's apt uses, turned to
 * the wanted suite.
 */
import type { RunContext } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { type IndexTarget, isDebian, pocketOf, readIndexTargets } from './apt-targets.ts';
import type { AptSource } from './sources.ts';
import { ARCHIVE_KEYRING, suiteFacts } from './suites.ts';

/**
 * The sources of `suite` as a fresh machine shall have them.
 * @param mirror URL of a Debian mirror instead of this machine's
 * @throws UserError `unknown-suite`, `mirror-unknown`
 */
export async function debianSources(context: RunContext, suite: string, mirror?: string): Promise<AptSource[]> {
  const targets = mirror === undefined ? await readIndexTargets(context) : [];
  return planSources(suite, targets, mirror);
}

/** Which of a machine's sources serve `suite`, and under which names. Pure. */
export function planSources(suite: string, targets: readonly IndexTarget[], mirror?: string): AptSource[] {
  const { codename } = suiteFacts(suite);
  const pockets = codename === 'sid' ? [''] : ['', '-updates', '-security'];
  if (mirror !== undefined) {
    const uri = checkMirror(mirror);
    // the security archive is another tree, which a mirror of the main one does not promise to carry
    return [source(uri, codename === 'sid' ? [codename] : [codename, `${codename}-updates`], ['main'])];
  }
  const debian = targets.filter(isDebian);
  const byUri = new Map<string, { suites: Set<string>; components: Set<string> }>();
  for (const pocket of pockets) {
    for (const target of debian.filter((one) => pocketOf(one) === pocket)) {
      const entry = byUri.get(target.uri) ?? { suites: new Set(), components: new Set() };
      entry.suites.add(codename + pocket);
      entry.components.add(target.component);
      byUri.set(target.uri, entry);
    }
  }
  if (!debian.some((one) => pocketOf(one) === '')) {
    throw new UserError('mirror-unknown', "this machine's apt has no Debian mirror to build from", {
      hint: 'name one: --mirror URL',
    });
  }
  return [...byUri].map(([uri, { suites, components }]) =>
    source(uri, [...suites], components.has('main') ? ['main'] : [...components]),
  );
}

function source(uri: string, suites: readonly string[], components: readonly string[]): AptSource {
  return { types: ['deb'], uris: [uri], suites, components, signedBy: ARCHIVE_KEYRING };
}

function checkMirror(mirror: string): string {
  if (!/^(https?|file):\/\/\S+$/.test(mirror)) {
    throw new UserError('mirror-unknown', `'${mirror}' is no address of a mirror`, {
      hint: 'write it like http://mirror.example/debian',
    });
  }
  return mirror.endsWith('/') ? mirror : `${mirror}/`;
}
