/** Sizes as people write them: `512M`, `8G`, powers of 1024 as QEMU reads them. */
import { UserError } from '../core/errors.ts';

const FACTORS: Readonly<Record<string, number>> = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** Bytes of `8G`, `512M`, `4096K`. @throws UserError `size` */
export function parseSize(text: string): number {
  const match = /^(\d{1,9})([KMGT])(?:i?B)?$/i.exec(text.trim());
  const bytes = Number(match?.[1]) * (FACTORS[match?.[2]?.toUpperCase() ?? ''] ?? Number.NaN);
  if (!Number.isSafeInteger(bytes) || bytes === 0) {
    throw new UserError('size', `'${text}' is no size`, { hint: 'write a number and K, M, G or T, for example 512M' });
  }
  return bytes;
}
