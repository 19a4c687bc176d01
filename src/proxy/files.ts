/**
 * Objects opened for serving: descriptors that stay open, small ones in memory, and the check that nobody changed them.
 *
 * Secret: what makes a hit cheap. Opening, reading through a stream and closing a small file costs five times its answer; here a
 * hit is a map look-up and one write. Once a second at most a file is looked at again: another size or time means that somebody
 * touched it, and it is read and hashed before it is served on.
 */
import { closeSync, fstatSync, readSync, statSync } from 'node:fs';
import type { Blobs } from './blobs.ts';
import type { Store } from './store.ts';

const MAX_OPEN = 512;
const MEMORY_EACH = 64 * 1024;
const MEMORY_ALL = 24 * 1024 * 1024;
const LOOK_AGAIN_MS = 1000;

export interface OpenFile {
  readonly sha256: string;
  readonly size: number;
  readonly fd: number;
  /** The whole content, when it is small. */
  readonly bytes: Buffer | undefined;
  readonly mtimeMs: number;
  users: number;
  doomed: boolean;
  lookedAt: number;
  /** Since the last flush of use counts. */
  uses: number;
}

export interface Files extends Disposable {
  /** The open file; 'suspect' when it must be read again first; undefined when it is not in the cache. */
  get(sha256: string): OpenFile | 'suspect' | undefined;
  /** Like `get`, reading suspects again; an object that is not what it was is dropped. */
  open(sha256: string): Promise<OpenFile | undefined>;
  /** A small object that was stored this moment: its bytes need not be read again. */
  remember(sha256: string, bytes: Buffer, mtimeMs: number): OpenFile | undefined;
  /** False when the file is no longer what was opened; it is closed and forgotten then. */
  stillGood(file: OpenFile): boolean;
  hold(file: OpenFile): void;
  release(file: OpenFile): void;
  forget(sha256: string): void;
  forgetAll(): void;
  /** Use counts since the last call. */
  takeUses(): Map<string, number>;
}

export function createFiles(
  blobs: Blobs,
  store: Store,
  clock: () => number,
  onHealed: (sha256: string) => void,
): Files {
  const open = new Map<string, OpenFile>();
  const checking = new Map<string, Promise<boolean>>();
  let memory = 0;

  function close(file: OpenFile): void {
    if (file.fd >= 0) closeSync(file.fd);
  }
  function forget(sha256: string): void {
    const file = open.get(sha256);
    if (!file) return;
    open.delete(sha256);
    if (file.bytes) memory -= file.bytes.length;
    file.doomed = true;
    if (file.users === 0) close(file);
  }
  function makeRoom(): void {
    if (open.size < MAX_OPEN && memory < MEMORY_ALL) return;
    let steps = 64;
    for (const file of open.values()) {
      if (steps === 0 || (open.size < MAX_OPEN * 0.9 && memory < MEMORY_ALL * 0.9)) return;
      steps -= 1;
      if (file.users === 0) {
        flushUses(file);
        forget(file.sha256);
      }
    }
  }
  const pendingUses = new Map<string, number>();
  function flushUses(file: OpenFile): void {
    if (file.uses > 0) pendingUses.set(file.sha256, (pendingUses.get(file.sha256) ?? 0) + file.uses);
    file.uses = 0;
  }
  function adopt(sha256: string, blob: { fd: number; size: number; mtimeMs: number }): OpenFile {
    makeRoom();
    let bytes: Buffer | undefined;
    let { fd } = blob;
    if (blob.size <= MEMORY_EACH) {
      bytes = Buffer.allocUnsafeSlow(blob.size);
      readSync(fd, bytes, 0, blob.size, 0);
      closeSync(fd);
      fd = -1;
      memory += blob.size;
    }
    const { size, mtimeMs } = blob;
    const file = { sha256, size, fd, bytes, mtimeMs, users: 0, doomed: false, lookedAt: clock(), uses: 0 };
    open.set(sha256, file);
    return file;
  }

  function get(sha256: string): OpenFile | 'suspect' | undefined {
    const already = open.get(sha256);
    if (already) {
      if (stillGood(already)) return already;
    }
    const row = store.object(sha256);
    if (!row) return undefined;
    const blob = blobs.open(sha256);
    if (!blob) {
      store.dropObject(sha256); // somebody deleted it: fetched again
      onHealed(sha256);
      return undefined;
    }
    if (blob.size !== row.size || blob.mtimeMs !== row.mtimeMs || !row.checked) {
      closeSync(blob.fd);
      return 'suspect';
    }
    return adopt(sha256, blob);
  }

  function stillGood(file: OpenFile): boolean {
    if (file.doomed) return false;
    const now = clock();
    if (now - file.lookedAt < LOOK_AGAIN_MS) return true;
    file.lookedAt = now;
    try {
      const stats = file.fd >= 0 ? fstatSync(file.fd) : statSync(blobs.pathOf(file.sha256));
      if (stats.size === file.size && stats.mtimeMs === file.mtimeMs && stats.nlink > 0) return true;
    } catch {
      // it is gone
    }
    flushUses(file);
    forget(file.sha256);
    return false;
  }

  async function recheck(sha256: string): Promise<boolean> {
    const good = (await blobs.digest(sha256)) === sha256;
    if (good) {
      const blob = blobs.open(sha256);
      if (blob) {
        closeSync(blob.fd);
        store.markChecked(sha256, blob.mtimeMs);
        return true;
      }
    }
    store.dropObject(sha256);
    blobs.remove(sha256);
    onHealed(sha256);
    return false;
  }

  return {
    get,
    stillGood,
    remember(sha256, bytes, mtimeMs) {
      if (bytes.length > MEMORY_EACH) return undefined;
      const already = open.get(sha256);
      if (already) return already;
      makeRoom();
      memory += bytes.length;
      const { length: size } = bytes;
      const file = { sha256, size, fd: -1, bytes, mtimeMs, users: 0, doomed: false, lookedAt: clock(), uses: 0 };
      open.set(sha256, file);
      return file;
    },
    async open(sha256) {
      const found = get(sha256);
      if (found !== 'suspect') return found;
      let check = checking.get(sha256);
      if (!check) {
        check = recheck(sha256).finally(() => checking.delete(sha256));
        checking.set(sha256, check);
      }
      if (!(await check)) return undefined;
      const again = get(sha256);
      return again === 'suspect' ? undefined : again;
    },
    hold: (file) => {
      file.users += 1;
    },
    release(file) {
      file.users -= 1;
      if (file.doomed && file.users === 0) close(file);
    },
    forget,
    forgetAll() {
      for (const file of [...open.values()]) {
        flushUses(file);
        forget(file.sha256);
      }
    },
    takeUses() {
      for (const file of open.values()) flushUses(file);
      const taken = new Map(pendingUses);
      pendingUses.clear();
      return taken;
    },
    [Symbol.dispose]() {
      for (const sha256 of [...open.keys()]) forget(sha256);
    },
  };
}
