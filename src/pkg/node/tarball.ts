/**
 * A look into npm tarballs before npm unpacks them: names that leave the folder, links, too much content.
 *
 * Secret: tar as npm packages have it (ustar with pax headers for long names). npm's unpacker leaves such entries out in silence,
 * and a package with holes would come out; here they are an error.
 */
import { createGunzip } from 'node:zlib';
import { UserError } from '../../core/errors.ts';
import { formatBytes, printable } from '../../core/log.ts';

const BLOCK = 512;
/** Of one package, unpacked. The largest known ones have about 0.5 GB. */
const MAX_UNPACKED_BYTES = 4e9;
const MAX_PAX_BYTES = 1 << 20;

/**
 * Reads a whole tarball and looks at every name in it.
 * @param name of the package, for messages
 * @throws UserError `unsafe-tarball`, `broken-tarball`
 */
export async function inspectTarball(source: AsyncIterable<Uint8Array>, name: string): Promise<void> {
  const scan = createScan(name);
  for await (const chunk of gunzipped(source, name)) scan.push(chunk);
  scan.end();
}

async function* gunzipped(source: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Buffer> {
  const chunks = source[Symbol.asyncIterator]();
  const first = await chunks.next();
  if (first.done) throw broken(name, 'it is empty');
  const whole = (async function* () {
    yield first.value;
    for (let next = await chunks.next(); !next.done; next = await chunks.next()) yield next.value;
  })();
  if (!(first.value[0] === 0x1f && first.value[1] === 0x8b)) {
    for await (const chunk of whole) yield Buffer.from(chunk);
    return;
  }
  const { compose } = await import('node:stream');
  try {
    yield* compose(whole, createGunzip()) as AsyncIterable<Buffer>;
  } catch (cause) {
    throw broken(name, 'it is not whole', cause);
  }
}

interface Scan {
  push(chunk: Buffer): void;
  end(): void;
}

function createScan(name: string): Scan {
  let pending: Buffer = Buffer.alloc(0);
  let skip = 0;
  let total = 0;
  let longName: string | undefined;
  let entries = 0;
  let body: { readonly kind: 'pax' | 'long'; readonly size: number } | undefined;

  function header(block: Buffer): void {
    const size = parseSize(block);
    if (size === undefined || !hasRightChecksum(block)) throw broken(name, 'it is no tar archive');
    const flag = String.fromCharCode(block[156]!);
    skip = Math.ceil(size / BLOCK) * BLOCK;
    if (flag === 'x' || flag === 'L') {
      if (size > MAX_PAX_BYTES) throw broken(name, `a header of ${formatBytes(size)}`);
      body = { kind: flag === 'x' ? 'pax' : 'long', size };
      return;
    }
    if (flag === 'g' || flag === 'K') return;
    const path = longName ?? storedName(block);
    longName = undefined;
    entries += 1;
    total += size;
    if (total > MAX_UNPACKED_BYTES) throw unsafe(name, `it unpacks to more than ${formatBytes(MAX_UNPACKED_BYTES)}`);
    refuseName(name, path);
    if (!'\x0005'.includes(flag) && flag !== '7') {
      throw unsafe(name, `'${printable(path)}' is a link or a device, which npm packages cannot have`);
    }
  }

  return {
    push(chunk) {
      let rest = chunk;
      while (rest.length > 0) {
        const wanted = body === undefined ? BLOCK : skip;
        if (body === undefined && skip > 0) {
          const passed = Math.min(skip, rest.length);
          skip -= passed;
          rest = rest.subarray(passed);
          continue;
        }
        pending = Buffer.concat([pending, rest.subarray(0, wanted - pending.length)]);
        rest = rest.subarray(wanted - (pending.length < wanted ? 0 : pending.length) <= 0 ? 0 : rest.length);
        if (pending.length < wanted) return;
      }
    },
    end() {
      if (entries === 0) throw broken(name, 'it holds nothing');
    },
  };
}
