/** What builders hand to `build`: planned packages with the means to make each; and the words of a policy. */
import type { DebSpec } from '../deb/archive.ts';
import type { KeyParts } from './explain.ts';
import type { Component } from './sbom.ts';

/** One package that is planned. Builders (python, node, tree, manifest) make these; `produce` turns them into files. */
export interface PackageJob {
  readonly name: string;
  /** Whole Debian version. */
  readonly version: string;
  /** Where it comes from: 'pypi:flask==3.1.3', 'its source tree, version 1.0'. */
  readonly source: string;
  /** 'asked for', 'needed by python3-flask'. */
  readonly why: string;
  /** Digest of everything that decides the bytes; undefined where that cannot be known without making it. */
  readonly key: string | undefined;
  /** What the key was made of, by name, to say what changed. */
  readonly parts?: KeyParts | undefined;
  /** Seconds since the epoch, where it is known beforehand. */
  readonly sourceDateEpoch?: number | undefined;
  make(): Promise<Made>;
}

/** What `make` gives may be read until it is disposed. */
export interface Made extends Partial<Disposable> {
  readonly spec: DebSpec;
  readonly architecture: string;
  readonly warnings: readonly string[];
  /** What others made and the package carries, the one that it is named after first. */
  readonly components?: readonly Component[];
  /** True for installed paths of programs and libraries that were compiled here: their symbols are split off. */
  readonly isCompiledHere?: (path: string) => boolean;
  /** Needed where the job does not say it. */
  readonly sourceDateEpoch?: number;
}

export type DependencyMode = 'auto' | 'packages' | 'bundle' | 'distro';

export interface BuildPolicy {
  /** 'auto': what the suite has is left to it, what it lacks is built, what it has otherwise is vendored; default 'packages'. */
  readonly deps?: DependencyMode | undefined;
  /** Overrides by distribution name. */
  readonly present?: readonly string[] | undefined;
  readonly build?: readonly string[] | undefined;
  readonly vendor?: readonly string[] | undefined;
  readonly drop?: readonly string[] | undefined;
  /** Distribution to Debian name. */
  readonly rename?: Readonly<Record<string, string>> | undefined;
  /** Debian name of a built package to further relations. */
  readonly depends?: Readonly<Record<string, readonly string[]>> | undefined;
  /** npm trees: whole in one package (default), or a package for each. */
  readonly npm?: 'bundle' | 'packages' | undefined;
  /** npm packages, NAME or NAME@VERSION, whose install scripts may run. */
  readonly 'allow-scripts'?: readonly string[] | undefined;
  /** Where to read what the suite has, when this machine does not follow it. */
  readonly mirror?: string | undefined;
}

/** One row of the whole table: also what is left to the suite, carried inside, or dropped. */
export interface PlannedDependency {
  /** Debian's name for what is built or present, the distribution's otherwise. */
  readonly name: string;
  readonly version: string;
  readonly decision: 'build' | 'present' | 'vendor' | 'drop';
  readonly why: string;
}
