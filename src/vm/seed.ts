/**
 * The NoCloud seed that a cloud image reads at its first boot: meta-data, user-data and network-config in a small ISO.
 *
 * Secret: ECMA-119 (ISO 9660) with Joliet names, written without a mount (cloud-init, "NoCloud": volume label `cidata`).
 */

export interface SeedFile {
  readonly name: string;
  readonly content: string;
}
