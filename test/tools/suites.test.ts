/** What we say of bookworm against its own index. */
import { expect, it } from 'vitest';
import { getField, readParagraphs } from '../../src/deb/control.ts';
import { suiteFacts } from '../../src/deb/suites.ts';
import { compareVersions, parseVersion } from '../../src/deb/version.ts';
import { openPackagesIndex } from '../support/packages-index.ts';
import { createWorld } from '../support/world.ts';

it("knows bookworm's Python, Node.js and dpkg", { timeout: 120_000 }, async () => {
  await using world = await createWorld();
  await using index = await openPackagesIndex(world.context, world.path);
  const versions = new Map<string, string>();
  for await (const paragraph of readParagraphs(index.stdout)) {
    const name = getField(paragraph, 'Package') ?? '';
    if (['python3', 'nodejs', 'dpkg'].includes(name)) versions.set(name, getField(paragraph, 'Version') ?? '');
  }
  await index.ended;
  const upstream = (name: string) => parseVersion(versions.get(name) ?? '').upstream.split('.');
  const facts = suiteFacts('bookworm');
  expect(upstream('python3').slice(0, 2).join('.')).toBe(facts.python);
  expect(upstream('nodejs')[0]).toBe(facts.node);
  expect(compareVersions(versions.get('dpkg') ?? '', '1.21.18') >= 0).toBe(facts.zstd);
});
