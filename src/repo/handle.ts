/**
 * An open repository as its parts see it: where things are, the catalog, the keys, and the locks.
 *
 * Secret: which lock is held when. Adding and removing exclude each other for moments only (`write.lock`); publishing and
 * whatever deletes published things exclude each other for as long as they take (`publish.lock`). Both are the kernel's, so
 * that no crash leaves one behind. Who needs both takes `publish` first.
 */
import type { Context } from '../core/context.ts';
import { type Lock, lock } from '../core/db.ts';
import { UserError } from '../core/errors.ts';
import { type Scratch, scratchFolder } from '../core/files.ts';
import { didYouMean } from '../core/nearest.ts';
import type { Catalog, Member, NewPackage, PackageKind } from './catalog.ts';
import type { KeyStore } from './keys.ts';
import type { Layout } from './layout.ts';
import type { SuiteSettings } from './settings.ts';

/** Another writer is done in moments; a long queue of them in minutes. */
const WRITE_LOCK_MS = 10 * 60_000;
/** A publish of a large suite takes seconds; compressing one for the first time, a minute. */
const PUBLISH_LOCK_MS = 30 * 60_000;

export interface RepoHandle {
  readonly context: Context;
  readonly dir: string;
  readonly layout: Layout;
  readonly catalog: Catalog;
  readonly keys: KeyStore;
}

/** A package in a suite, as commands show it. */
export interface PackageFacts {
  readonly suite: string;
  readonly component: string;
  readonly kind: PackageKind;
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly source: string;
  /** Below public/. */
  readonly filename: string;
  readonly size: number;
  readonly sha256: string;
}

export function factsOf(suite: string, component: string, item: NewPackage): PackageFacts {
  const { kind, name, version, architecture, source, filename, size, sha256 } = item;
  return { suite, component, kind, name, version, architecture, source, filename, size, sha256 };
}

export function factsOfMember(member: Member): PackageFacts {
  return factsOf(member.suite, member.component, member.package);
}

export function lockWrite(repo: RepoHandle): Promise<Lock> {
  return lock(repo.layout.writeLock, {
    waitMs: WRITE_LOCK_MS,
    what: `repository '${repo.dir}'`,
    signal: repo.context.signal,
  });
}

export function lockPublish(repo: RepoHandle): Promise<Lock> {
  return lock(repo.layout.publishLock, {
    waitMs: PUBLISH_LOCK_MS,
    what: `repository '${repo.dir}'`,
    signal: repo.context.signal,
  });
}

/** A folder on the file system of the pool, so that a rename can move what is made in it. */
export function scratchOf(repo: RepoHandle, prefix: string): Promise<Scratch> {
  return scratchFolder(repo.layout.incoming, prefix);
}

/** By codename or alias. @throws UserError `no-such-suite` */
export function findSuite(repo: RepoHandle, name: string): SuiteSettings {
  const suites = repo.catalog.suites();
  const found = suites.find((suite) => suite.name === name) ?? suites.find((suite) => suite.alias === name);
  if (found) return found;
  const names = suites.map((suite) => suite.name);
  throw new UserError('no-such-suite', `the repository has no suite '${name}'`, {
    hint: didYouMean(name, names) ?? `it has ${names.join(', ')}`,
  });
}

/** The component meant: the suite's first without a wish. @throws UserError `no-such-component` */
export function findComponent(suite: SuiteSettings, wanted: string | undefined): string {
  if (wanted === undefined) return suite.components[0]!;
  if (suite.components.includes(wanted)) return wanted;
  throw new UserError('no-such-component', `suite '${suite.name}' has no component '${wanted}'`, {
    hint: didYouMean(wanted, suite.components) ?? `it has ${suite.components.join(', ')}`,
  });
}
