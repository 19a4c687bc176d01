/**
 * The access log of a server, in the "combined" format of Apache and nginx.
 *
 * Secret: that one answer is one line, whatever a client sends: quotes, backslashes and everything but printable ASCII are written
 * as `\xHH` (Apache's rule), so that nobody can write a line of somebody else or steer a terminal.
 */

import { once } from 'node:events';
import { createWriteStream, type WriteStream } from 'node:fs';
import { explainWriteError } from '../core/files.ts';

export interface Access {
  readonly address: string | undefined;
  /** Whose token was used. */
  readonly user: string | undefined;
  readonly at: Date;
  readonly method: string;
  readonly target: string;
  readonly httpVersion: string;
  readonly status: number;
  /** Of the body, as far as it was sent. */
  readonly bytes: number;
  readonly referer: string | undefined;
  readonly agent: string | undefined;
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
/** Of one field: a megabyte of header is no megabyte of log. */
const MAX_FIELD = 2000;

function escaped(text: string | undefined): string {
  if (text === undefined || text === '') return '-';
  return Buffer.from(text.slice(0, MAX_FIELD), 'utf8')
    .toString('latin1')
    .replace(/[^\x20-\x7e]|["\\]/g, (character) =>
      character === '"' || character === '\\'
        ? `\\${character}`
        : `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
    );
}

/** '21/Nov/2026:11:30:01 +0000'. */
function timeOf(at: Date): string {
  const [day, time] = at.toISOString().slice(0, 19).split('T') as [string, string];
  const [year, month, date] = day.split('-');
  return `${date}/${MONTHS[Number(month) - 1]}/${year}:${time} +0000`;
}

/** One line, without its end. */
export function accessLine(access: Access): string {
  const { address, user, at, method, target, httpVersion, status, bytes, referer, agent } = access;
  const name = escaped(user).replaceAll(' ', '\\x20'); // blanks end this field
  const request = escaped(`${method} ${target} HTTP/${httpVersion}`);
  return `${escaped(address)} - ${name} [${timeOf(at)}] "${request}" ${status} ${bytes === 0 ? '-' : bytes} "${escaped(referer)}" "${escaped(agent)}"`;
}

/** A log file that can be moved away (logrotate) and opened anew. */
export class AccessLog implements AsyncDisposable {
  readonly #path: string;
  readonly #warn: (message: string) => void;
  #stream: WriteStream;

  private constructor(path: string, stream: WriteStream, warn: (message: string) => void) {
    this.#path = path;
    this.#stream = stream;
    this.#warn = warn;
  }

  /** @throws UserError when the file cannot be written */
  static async open(path: string, warn: (message: string) => void): Promise<AccessLog> {
    return new AccessLog(path, await openStream(path, warn), warn);
  }

  write(access: Access): void {
    this.#stream.write(`${accessLine(access)}\n`);
  }

  /** The file may have been moved: what comes now goes to one of the old name. */
  async reopen(): Promise<void> {
    try {
      const before = this.#stream;
      this.#stream = await openStream(this.#path, this.#warn);
      before.end();
    } catch (error) {
      this.#warn(`cannot open the access log anew: ${(error as Error).message}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((done) => this.#stream.end(done));
  }
}

async function openStream(path: string, warn: (message: string) => void): Promise<WriteStream> {
  const stream = createWriteStream(path, { flags: 'a', mode: 0o640 });
  try {
    await once(stream, 'open');
  } catch (cause) {
    throw explainWriteError(cause, path);
  }
  stream.on('error', (error) => warn(`cannot write the access log: ${error.message}`));
  return stream;
}
