/**
 * Shared library dependencies: from the libraries that ELF files name to Debian packages.
 *
 * Secret: which package of which suite has which soname, and since when it has a symbol version. A table rather than
 * dpkg-shlibdeps, since it must answer for the target's suite, not for this machine's, and in a millisecond; wheels may use
 * few libraries (PEP 600). A tools test holds it against dpkg-shlibdeps.
 */
import type { ElfNeeds } from './elf.ts';

export interface SharedNeeds {
  /** As in Depends: 'libc6 (>= 2.34)', sorted. */
  readonly depends: readonly string[];
  /** Libraries that the table does not know. */
  readonly unknown: readonly string[];
}

const LIBC = /^(lib(c|m|dl|rt|pthread|util|resolv|anl|nsl|mvec|BrokenLocale|thread_db)|ld-linux[\w-]*|ld64)\.so\.\d+$/;

/** Packages by soname; `t64` marks those that were renamed for 64-bit time in trixie. */
const PACKAGES: Readonly<Record<string, string>> = {
  'libEGL.so.1': 'libegl1',
  'libGL.so.1': 'libgl1',
  'libGLX.so.0': 'libglx0',
  'libGLU.so.1': 'libglu1-mesa',
  'libICE.so.6': 'libice6',
  'libOpenGL.so.0': 'libopengl0',
  'libSM.so.6': 'libsm6',
  'libX11.so.6': 'libx11-6',
  'libX11-xcb.so.1': 'libx11-xcb1',
  'libXau.so.6': 'libxau6',
  'libXcursor.so.1': 'libxcursor1',
  'libXext.so.6': 'libxext6',
  'libXfixes.so.3': 'libxfixes3',
  'libXi.so.6': 'libxi6',
  'libXinerama.so.1': 'libxinerama1',
  'libXrandr.so.2': 'libxrandr2',
  'libXrender.so.1': 'libxrender1',
  'libXss.so.1': 'libxss1',
  'libasound.so.2': 'libasound2 t64',
  'libatomic.so.1': 'libatomic1',
  'libbz2.so.1.0': 'libbz2-1.0',
  'libcrypt.so.1': 'libcrypt1',
  'libcrypto.so.3': 'libssl3 t64',
  'libcups.so.2': 'libcups2 t64',
  'libdbus-1.so.3': 'libdbus-1-3',
  'libdrm.so.2': 'libdrm2',
  'libexpat.so.1': 'libexpat1',
  'libffi.so.8': 'libffi8',
  'libfontconfig.so.1': 'libfontconfig1',
  'libfreetype.so.6': 'libfreetype6',
  'libgbm.so.1': 'libgbm1',
  'libgfortran.so.5': 'libgfortran5',
  'libgio-2.0.so.0': 'libglib2.0-0 t64',
  'libglib-2.0.so.0': 'libglib2.0-0 t64',
  'libgobject-2.0.so.0': 'libglib2.0-0 t64',
  'libgomp.so.1': 'libgomp1',
  'libgthread-2.0.so.0': 'libglib2.0-0 t64',
  'liblzma.so.5': 'liblzma5',
  'libncursesw.so.6': 'libncursesw6',
  'libpython3.9.so.1.0': 'libpython3.9',
  'libpython3.11.so.1.0': 'libpython3.11',
  'libpython3.13.so.1.0': 'libpython3.13',
  'libquadmath.so.0': 'libquadmath0',
  'libreadline.so.8': 'libreadline8 t64',
  'libsqlite3.so.0': 'libsqlite3-0',
  'libssl.so.3': 'libssl3 t64',
  'libtinfo.so.6': 'libtinfo6',
  'libuuid.so.1': 'libuuid1',
  'libwayland-client.so.0': 'libwayland-client0',
  'libxcb.so.1': 'libxcb1',
  'libxkbcommon.so.0': 'libxkbcommon0',
  'libxml2.so.2': 'libxml2',
  'libz.so.1': 'zlib1g',
};

/** Symbol versions of libstdc++ and the GCC that brought them; earlier ones are older than every suite. */
const GCC_OF: Readonly<Record<string, string>> = {
  'GLIBCXX_3.4.20': '4.9',
  'GLIBCXX_3.4.21': '5.2',
  'GLIBCXX_3.4.22': '6',
  'GLIBCXX_3.4.23': '7',
  'GLIBCXX_3.4.24': '7.2',
  'GLIBCXX_3.4.25': '8',
  'GLIBCXX_3.4.26': '9',
  'GLIBCXX_3.4.27': '9.2',
  'GLIBCXX_3.4.28': '9.3',
  'GLIBCXX_3.4.29': '11',
  'GLIBCXX_3.4.30': '12',
  'GLIBCXX_3.4.31': '13.1',
  'GLIBCXX_3.4.32': '13.2',
  'GLIBCXX_3.4.33': '14',
  'GLIBCXX_3.4.34': '15',
  'CXXABI_1.3.8': '4.9',
  'CXXABI_1.3.9': '5.2',
  'CXXABI_1.3.10': '6',
  'CXXABI_1.3.11': '7',
  'CXXABI_1.3.12': '9',
  'CXXABI_1.3.13': '11',
  'CXXABI_1.3.14': '12',
  'CXXABI_1.3.15': '14',
};

/**
 * @param objects every ELF file of one package; libraries among them satisfy the others
 * @param ownNames file names of libraries that the package brings (bundled *.libs)
 * @param suiteNumber '12': names changed in 13
 */
export function sharedDepends(
  objects: readonly ElfNeeds[],
  ownNames: ReadonlySet<string>,
  suiteNumber: string,
): SharedNeeds {
  const own = new Set([...ownNames, ...objects.flatMap((object) => object.soname ?? [])]);
  const since = new Map<string, string>();
  const unknown = new Set<string>();
  const need = (name: string, version = '') => {
    if (compareNumbers(version, since.get(name) ?? '') >= 0) since.set(name, version);
  };
  for (const object of objects) {
    for (const library of object.needed) {
      if (own.has(library)) continue;
      const versions = object.versions.get(library) ?? [];
      if (LIBC.test(library)) need('libc6', highest(versions, 'GLIBC_'));
      else if (library === 'libgcc_s.so.1') need('libgcc-s1', highest(versions, 'GCC_'));
      else if (library === 'libstdc++.so.6')
        need(
          'libstdc++6',
          versions
            .map((name) => GCC_OF[name] ?? '')
            .sort(compareNumbers)
            .at(-1),
        );
      else if (Object.hasOwn(PACKAGES, library)) need(packageIn(PACKAGES[library]!, suiteNumber));
      else unknown.add(library);
    }
  }
  const depends = [...since].map(([name, version]) => (version === '' ? name : `${name} (>= ${version})`));
  return { depends: depends.sort(), unknown: [...unknown].sort() };
}

function packageIn(entry: string, suiteNumber: string): string {
  const [name = '', renamed] = entry.split(' ');
  return renamed !== undefined && Number(suiteNumber) >= 13 ? `${name}${renamed}` : name;
}

function highest(versions: readonly string[], prefix: string): string {
  const numbers = versions.filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length));
  return (
    numbers
      .filter((number) => /^[\d.]+$/.test(number))
      .sort(compareNumbers)
      .at(-1) ?? ''
  );
}

function compareNumbers(a: string, b: string): number {
  const [left, right] = [a, b].map((text) => text.split('.').map(Number));
  for (let index = 0; index < Math.max(left!.length, right!.length); index += 1) {
    const difference = (left![index] ?? 0) - (right![index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
