/** Compressors of .deb members. Ruled by deb(5), xz(1), zstd(1), RFC 1952. */

/** What buildkit writes. */
export type Compression = 'xz' | 'zstd' | 'gzip' | 'none';
