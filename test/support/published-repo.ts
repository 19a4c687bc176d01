/** A signed repository of bookworm with one package in it. */
import { join } from 'node:path';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { makePackage } from './packages.ts';
import type { World } from './world.ts';

/** @param name of the package */
export async function publishedRepo(world: World, name: string): Promise<Repo> {
  const request = { name: 'Example', email: 'a@example.org', algorithm: 'ed25519' as const, expiresSeconds: undefined };
  await new KeyStore(world.context).generate(request);
  const repo = await Repo.init(world.context, join(world.path, 'repo'), {
    suites: [{ name: 'bookworm', components: ['main'], architectures: ['amd64'] }],
    origin: 'Example',
    label: 'Example',
  });
  await makePackage(world.context, join(world.path, 'in'), { name });
  await repo.add('bookworm', [join(world.path, 'in')]);
  await repo.publish();
  return repo;
}
