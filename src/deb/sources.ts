/**
 * apt's list of sources: deb822 `.sources` files and one-line `sources.list` (sources.list(5)).
 */
export interface AptSource {
  readonly types: readonly ('deb' | 'deb-src')[];
  readonly uris: readonly string[];
  /** Suites, or one path that ends in `/` for a flat repository. */
  readonly suites: readonly string[];
  readonly components: readonly string[];
  readonly architectures?: readonly string[];
  readonly enabled?: boolean;
  /** Paths of keyrings or fingerprints, as apt takes them; or the armored public key itself. */
  readonly signedBy?: string;
  /** Any other field or option, name as apt writes it in deb822 (`Languages`, `By-Hash`, `Trusted`, `Snapshot`, ...). */
  readonly options?: Readonly<Record<string, string>>;
}
