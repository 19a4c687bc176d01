/**
 * Where passphrases come from: a file descriptor, a file, or a question on the terminal. Never argv, which every user of the
 * machine can read, and never a log.
 */

import { createReadStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import type { Command } from 'commander';
import { UsageError, UserError } from '../core/errors.ts';
import type { PassphraseSource } from '../repo/keys.ts';
import type { CommandContext } from './command.ts';

export interface PassphraseOptions {
  readonly passphraseFd?: string;
  readonly passphraseFile?: string;
}

export function addPassphraseOptions(command: Command): Command {
  return command
    .option('--passphrase-fd <n>', 'read the passphrase of the key from this file descriptor')
    .option('--passphrase-file <file>', 'read it from this file (also: BUILDKIT_PASSPHRASE_FILE)');
}

/** Reads what the options, or the environment, point to; undefined when nothing does. The first line counts. */
async function givenPassphrase(cx: CommandContext, options: PassphraseOptions): Promise<string | undefined> {
  if (options.passphraseFd !== undefined) {
    const fd = Number(options.passphraseFd);
    if (!Number.isInteger(fd) || fd < 0) throw new UsageError(`'${options.passphraseFd}' is no file descriptor`);
    let text = '';
    for await (const chunk of createReadStream('', { fd, encoding: 'utf8', autoClose: false })) text += chunk;
    return firstLine(text, `file descriptor ${fd}`);
  }
  const file = options.passphraseFile ?? cx.env.BUILDKIT_PASSPHRASE_FILE;
  return file === undefined ? undefined : firstLine(await readFile(file, 'utf8'), `'${file}'`);
}

function firstLine(text: string, where: string): string {
  const line = text.split('\n')[0] ?? '';
  if (line !== '') return line;
  throw new UserError('passphrase-empty', `there is no passphrase in ${where}`);
}

/** For keys that exist: what was handed over, else a question where somebody can answer it. */
export function passphraseSource(cx: CommandContext, options: PassphraseOptions): PassphraseSource {
  return async (key) => {
    const given = await givenPassphrase(cx, options);
    if (given !== undefined || !cx.interactive) return given;
    return ask(`Passphrase of ${key.userIds[0] ?? ''} ${key.fingerprint}: `);
  };
}

/** For a new key; undefined without one. `--protect` asks twice. */
export async function readNewPassphrase(
  cx: CommandContext,
  options: PassphraseOptions & { readonly protect?: boolean },
): Promise<string | undefined> {
  const given = await givenPassphrase(cx, options);
  if (given !== undefined || !options.protect) return given;
  if (!cx.interactive) {
    throw new UserError('passphrase-missing', 'there is no terminal to ask for a passphrase', {
      hint: 'hand it over with --passphrase-fd N or --passphrase-file FILE',
    });
  }
  const first = await ask('Passphrase of the new key: ');
  if (first !== (await ask('The same again: ')))
    throw new UserError('passphrase-differs', 'the two passphrases differ');
  if (first === '') throw new UserError('passphrase-empty', 'the passphrase is empty');
  return first;
}

/** Asks on the terminal without showing what is typed. */
async function ask(question: string): Promise<string> {
  let muted = false;
  const output = new Writable({
    write: (chunk, _encoding, done) => {
      if (!muted) process.stderr.write(chunk);
      done();
    },
  });
  const terminal = createInterface({ input: process.stdin, output, terminal: true });
  try {
    const answer = terminal.question(question);
    muted = true;
    return await answer;
  } finally {
    terminal.close();
    process.stderr.write('\n');
  }
}
