/** A file of each run below the state folder: every line of narration, whatever was shown. */
import { appendFileSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

const KEPT_TRANSCRIPTS = 50;

/** Writes nothing before the first line, and is silent where the folder cannot be written. */
export function openTranscript(
  stateDir: string,
  argv: readonly string[],
  startedAt: Date,
  pid: number,
): (line: string) => void {
  const folder = join(stateDir, 'transcripts');
  const stamp = startedAt.toISOString().replaceAll(/[-:]|\.\d+/g, '');
  const path = join(
    folder,
    `${stamp}-${
      argv
        .filter((word) => /^[a-z]+$/.test(word))
        .slice(0, 2)
        .join('-') || 'run'
    }-${pid}.log`,
  );
  let usable = true;
  let begun = false;
  return (line) => {
    if (!usable) return;
    try {
      if (!begun) {
        mkdirSync(stateDir, { recursive: true }); // with the user's own umask: the mode below is for this folder alone
        mkdirSync(folder, { recursive: true, mode: 0o700 });
        for (const old of readdirSync(folder).sort().slice(0, -KEPT_TRANSCRIPTS))
          rmSync(join(folder, old), { force: true });
        appendFileSync(path, `# buildkit ${argv.join(' ')}\n`, { mode: 0o600 });
        begun = true;
      }
      appendFileSync(path, `${line}\n`);
    } catch {
      usable = false; // a transcript is a convenience: the work itself will say what is wrong with the disk
    }
  };
}
