/**
 * The bytes of a body under way.
 *
 * Secret: where they are. A small body never touches the disk before it is whole; a larger one is in a partial file, which a
 * restart can go on with; when the disk refuses, what follows is in memory, as far back as somebody needs it.
 */
import { closeSync, createReadStream, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import type { Blobs } from './blobs.ts';

/** Bodies up to this size never touch the disk before they are whole. */
const SMALL = 256 * 1024;

export interface BodyEvents {
  /** Its bytes are in a partial file now. */
  onFile(name: string): void;
  onDiskTrouble(error: unknown): void;
}

export class Body {
  /** Bytes so far. */
  length = 0;
  /** True: nothing more goes to disk. */
  diskRefuses = false;
  readonly #blobs: Blobs;
  /** Of its partial file. */
  readonly #name: string;
  readonly #events: BodyEvents;
  #memory: Buffer[] = [];
  #memoryStart = 0;
  /** Where memory began: below it the disk has everything. */
  #memoryFirst = 0;
  #file: { readonly fd: number; readonly name: string } | undefined;

  constructor(blobs: Blobs, name: string, events: BodyEvents) {
    this.#blobs = blobs;
    this.#name = name;
    this.#events = events;
  }

  /** Bytes in memory, when the disk refuses. */
  get held(): number {
    return this.diskRefuses ? this.length - this.#memoryStart : 0;
  }

  /** Where memory begins; it grows when something was forgotten. */
  get memoryStart(): number {
    return this.#memoryStart;
  }

  /** False: the bytes from `position` on were forgotten (only when the disk refuses). */
  has(position: number): boolean {
    return this.#memoryStart <= this.#memoryFirst || position >= this.#memoryStart;
  }

  /** Copies up to `wanted` bytes from `position` on, which are there. Returns how many. */
  read(into: Buffer, position: number, wanted: number): number {
    const diskEnd = this.diskRefuses ? this.#memoryFirst : this.length;
    if (this.#file && position < diskEnd) {
      return readSync(this.#file.fd, into, 0, Math.min(wanted, diskEnd - position), position);
    }
    let at = this.#memoryStart;
    let copied = 0;
    for (const chunk of this.#memory) {
      if (position + copied < at + chunk.length && copied < wanted) {
        const from = position + copied - at;
        copied += chunk.copy(into, copied, from, Math.min(chunk.length, from + wanted - copied));
      }
      at += chunk.length;
      if (copied >= wanted) break;
    }
    return copied;
  }

  /** Nobody needs what is below `position` any more. */
  forgetBelow(position: number): void {
    if (!this.diskRefuses || this.length <= SMALL) return;
    while (this.#memory.length > 0 && this.#memoryStart + this.#memory[0]!.length <= position) {
      this.#memoryStart += this.#memory.shift()!.length;
    }
  }

  /** @param size of the whole body, when it is known */
  append(chunk: Buffer, size: number | undefined): void {
    const small = this.length + chunk.length <= SMALL && (size === undefined || size <= SMALL);
    if (this.#file === undefined && !small && !this.diskRefuses) this.#spill();
    if (this.#file === undefined || this.diskRefuses) this.#memory.push(Buffer.from(chunk));
    else {
      try {
        writeWhole(this.#file.fd, chunk, this.length);
      } catch (error) {
        this.#refuse(error);
        this.#memory.push(Buffer.from(chunk));
      }
    }
    this.length += chunk.length;
  }

  /** From memory to a file: it is larger than what is worth keeping there. */
  #spill(): void {
    try {
      this.#file = { fd: openSync(this.#blobs.partialPath(this.#name), 'w+'), name: this.#name };
      let at = 0;
      for (const part of this.#memory) {
        writeWhole(this.#file.fd, part, at);
        at += part.length;
      }
    } catch (error) {
      this.#closeFile();
      this.#refuse(error);
      return;
    }
    this.#memory = [];
    this.#memoryStart = this.length;
    this.#memoryFirst = this.length;
    this.#events.onFile(this.#name);
  }

  #refuse(error: unknown): void {
    this.diskRefuses = true;
    if (this.#file !== undefined) {
      this.#memoryStart = this.length;
      this.#memoryFirst = this.length;
    }
    this.#events.onDiskTrouble(error);
  }

  /**
   * Goes on with the partial file `name`, handing what is in it to `each`. False: it is empty, or of `limit` bytes or more.
   * @throws when it is not there
   */
  async takeUp(name: string, limit: number, each: (chunk: Buffer) => void): Promise<boolean> {
    const fd = openSync(this.#blobs.partialPath(name), 'r+');
    const { size } = fstatSync(fd);
    if (size === 0 || size >= limit) {
      closeSync(fd);
      return false;
    }
    for await (const chunk of createReadStream('', { fd, autoClose: false, start: 0, highWaterMark: 1 << 18 })) {
      each(chunk as Buffer);
      this.length += (chunk as Buffer).length;
    }
    this.#file = { fd, name };
    return true;
  }

  /** Forgets everything: the bytes were of another file. */
  restart(): void {
    this.length = 0;
    this.#memory = [];
    this.#memoryStart = 0;
    this.#memoryFirst = 0;
    if (!this.#file) return;
    try {
      ftruncateSync(this.#file.fd, 0);
    } catch (error) {
      this.#closeFile();
      this.#refuse(error);
    }
  }

  /** The whole body, when it is small enough to be in memory. */
  bytes(): Buffer | undefined {
    if (this.#file !== undefined || this.length > SMALL) return undefined;
    return this.#memory.length === 1 ? this.#memory[0]! : Buffer.concat(this.#memory);
  }

  /** Makes it the object `sha256`. Its time; undefined: the disk refuses. */
  store(sha256: string, bytes: Buffer | undefined): number | undefined {
    if (this.diskRefuses) return undefined;
    try {
      if (this.#file) return this.#blobs.adopt(this.#blobs.partialPath(this.#file.name), sha256);
      return this.#blobs.write(bytes ?? Buffer.concat(this.#memory), sha256);
    } catch (error) {
      this.#events.onDiskTrouble(error);
      return undefined;
    }
  }

  removePartial(): void {
    if (this.#file) this.#blobs.removePartial(this.#file.name);
  }

  close(): void {
    this.#closeFile();
  }

  #closeFile(): void {
    if (this.#file) closeSync(this.#file.fd);
    this.#file = undefined;
  }
}

function writeWhole(fd: number, bytes: Buffer, position: number): void {
  for (let offset = 0; offset < bytes.length; )
    offset += writeSync(fd, bytes, offset, bytes.length - offset, position + offset);
}
