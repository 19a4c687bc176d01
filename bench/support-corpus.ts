/** Packages to fill archives with: small generated ones by the ten thousand (Python's lzma, no process for each), and real ones of Debian. */
import { mkdir } from 'node:fs/promises';
import { run } from '../src/core/run.ts';
import { readAptList, readIndexTargets } from '../src/deb/apt-targets.ts';
import { getField } from '../src/deb/control.ts';

const MAKER = `
import io, lzma, multiprocessing, os, sys, tarfile

FOLDER, FIRST, LAST = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def control(name, n):
    return f"""Package: {name}
Version: 1.{n % 7}-1
Architecture: all
Maintainer: Bench <bench@example.org>
Installed-Size: {10 + n % 90}
Depends: pkg-{n * 7 % 1000:05} (>= 1.0), libc6 (>= 2.36), python3:any
Section: misc
Priority: optional
Homepage: https://example.org/{name}
Description: benchmark package {n}
 It says a few words about what it is for,
 as packages do: {name * 3}.
"""

def tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, text in files:
            entry = tarfile.TarInfo("./" + path)
            entry.size, entry.mtime, entry.uname, entry.gname = len(text), 1700000000, "root", "root"
            archive.addfile(entry, io.BytesIO(text.encode()))
    return lzma.compress(out.getvalue(), preset=0)

def member(name, data):
    head = f"{name:<16}{1700000000:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}\`\\n".encode()
    return head + data + (b"\\n" if len(data) % 2 else b"")

def make(n):
    name = f"pkg-{n:05}"
    files = [(f"usr/share/{name}/file{i}", f"{name} {i}\\n" * 20) for i in (1, 2, 3)]
    data = b"!<arch>\\n" + member("debian-binary", b"2.0\\n")
    data += member("control.tar.xz", tar([("control", control(name, n))])) + member("data.tar.xz", tar(files))
    with open(os.path.join(FOLDER, f"{name}_1.{n % 7}-1_all.deb"), "wb") as out:
        out.write(data)

os.makedirs(FOLDER, exist_ok=True)
with multiprocessing.Pool() as pool:
    pool.map(make, range(FIRST, LAST), 200)
`;

/** Writes packages number `from` to `to - 1`. */
export async function makeCorpus(folder: string, from: number, to: number): Promise<void> {
  await run({}, 'python3', ['-c', MAKER, folder, String(from), String(to)], { timeoutMs: 1_200_000 });
}

/** `count` packages of Debian itself, of 10 to 60 kB, into `folder`, and one more into `more`. Needs lists of apt. */
export async function fetchReal(folder: string, more: string, count: number): Promise<void> {
  const main = (await readIndexTargets({})).find((one) => one.component === 'main' && !one.codename.includes('-'));
  if (main === undefined) throw new Error("this machine's apt follows no Debian: apt-get update");
  const names: string[] = [];
  for await (const stanza of readAptList({}, main.file)) {
    const size = Number(getField(stanza, 'Size'));
    if (size > 10_000 && size < 60_000) names.push(getField(stanza, 'Package')!);
    if (names.length > count) break;
  }
  for (const [target, some] of [
    [folder, names.slice(0, count)],
    [more, names.slice(count)],
  ] as const) {
    await mkdir(target, { recursive: true });
    await run({}, 'apt-get', ['download', '-q', ...some], { cwd: target, timeoutMs: 1_200_000 });
  }
}
