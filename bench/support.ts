/** Side-by-side measurements: wall clock, CPU seconds and peak memory of a whole command, its children included. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../src/core/run.ts';

export interface Measurement {
  readonly name: string;
  readonly wallSeconds: number;
  readonly cpuSeconds: number;
  /** Of its largest process. */
  readonly peakMegabytes: number;
}

/** Runs argv and writes what it took to a file: the kernel tells a parent only of children that have ended. */
const WRAPPER = `
import json, resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.call(sys.argv[2:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump([time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024], file)
sys.exit(code)
`;

export interface MeasureOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Where the result is handed over. */
  readonly scratch: string;
}

/** Runs one command to its end. @throws ToolError when it fails */
export async function measure(name: string, argv: readonly string[], options: MeasureOptions): Promise<Measurement> {
  const file = join(options.scratch, 'measured.json');
  await run({}, 'python3', ['-c', WRAPPER, file, ...argv], {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: options.env }),
  });
  const [wallSeconds, cpuSeconds, peakMegabytes] = JSON.parse(await readFile(file, 'utf8')) as [number, number, number];
  return { name, wallSeconds, cpuSeconds, peakMegabytes };
}

/** The measurement whose wall clock is the median of an odd number of runs. */
export async function medianOf(times: number, once: () => Promise<Measurement>): Promise<Measurement> {
  const all: Measurement[] = [];
  for (let index = 0; index < times; index += 1) all.push(await once());
  return all.sort((a, b) => a.wallSeconds - b.wallSeconds)[Math.floor(times / 2)]!;
}

/** A table: the first row is what the others are compared with. */
export function report(title: string, rows: readonly Measurement[]): string {
  const base = rows[0]!;
  const ratio = (value: number, of: number) => `${(value / of).toFixed(2)}x`;
  const lines = rows.map((row) =>
    [
      row.name.padEnd(34),
      `${row.wallSeconds.toFixed(2)} s`.padStart(9),
      ratio(row.wallSeconds, base.wallSeconds).padStart(8),
      `${row.cpuSeconds.toFixed(2)} s`.padStart(9),
      ratio(row.cpuSeconds, base.cpuSeconds).padStart(8),
      `${row.peakMegabytes.toFixed(0)} MB`.padStart(8),
      ratio(row.peakMegabytes, base.peakMegabytes).padStart(8),
    ].join(' '),
  );
  const head = ['', 'wall', '', 'CPU', '', 'peak', ''].map((text, index) =>
    index === 0 ? text.padEnd(34) : text.padStart([9, 8, 9, 8, 8, 8][index - 1]!),
  );
  return [title, head.join(' ').trimEnd(), ...lines, ''].join('\n');
}

/** Commands that do the same, in turns, so that a machine that gets slower or faster is so for each; the median of each. */
export async function inTurns(
  times: number,
  scratch: string,
  commands: readonly { readonly name: string; readonly argv: readonly string[] }[],
): Promise<Measurement[]> {
  const all: Measurement[][] = commands.map(() => []);
  for (let turn = 0; turn < times; turn += 1) {
    for (const [index, { name, argv }] of commands.entries()) all[index]!.push(await measure(name, argv, { scratch }));
  }
  return all.map((rows) => rows.sort((a, b) => a.wallSeconds - b.wallSeconds)[Math.floor(times / 2)]!);
}
