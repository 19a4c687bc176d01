/**
 * Package relations: `a (>= 1) [amd64] <!nocheck> | b:any, c` of Policy 7.1, with the substvars of deb-substvars(5).
 *
 * Secret: the syntax, and when a set of packages satisfies a relation (Policy 7.5 for virtual packages).
 */

/** How `<<`, `<=`, `=`, `>=` and `>>` compare. */
export type Operator = '<<' | '<=' | '=' | '>=' | '>>';

export interface VersionRestriction {
  readonly operator: Operator;
  /** A Debian version, or a text with a substvar such as `${binary:Version}`. */
  readonly version: string;
}

/** One alternative. A substvar that stands alone is a relation whose name is that substvar. */
export interface Relation {
  /** A package name, or a text with a substvar such as `${misc:Depends}`. */
  readonly name: string;
  /** `any`, `native` or an architecture: what follows the colon. */
  readonly qualifier?: string;
  readonly version?: VersionRestriction;
  /** `amd64`, `linux-any`, or all with a `!` in front. */
  readonly architectures?: readonly string[];
  /** Each inner list is one `<...>`: all of its terms must hold; one of the lists must. */
  readonly profiles?: readonly (readonly string[])[];
}

/** Alternatives, the preferred one first: one of them is enough. */
export type RelationGroup = readonly Relation[];

/** What an installed or available package offers to relations. */
export interface Candidate {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  /** The Multi-Arch field. */
  readonly multiArch?: string | undefined;
  /** The Provides field. */
  readonly provides?: string | undefined;
}
