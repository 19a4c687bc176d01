import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { type ElfNeeds, readElf } from '../../../src/pkg/elf.ts';
import { sharedDepends } from '../../../src/pkg/shlibs.ts';

const object = (libraries: Record<string, string[]>, soname?: string): ElfNeeds => ({
  soname,
  needed: Object.keys(libraries),
  versions: new Map(Object.entries(libraries)),
  machine: 62,
});

describe('sharedDepends', () => {
  it('takes the highest symbol version of all objects', () => {
    const objects = [
      object({
        'libc.so.6': ['GLIBC_2.4', 'GLIBC_2.17'],
        'libstdc++.so.6': ['GLIBCXX_3.4', 'GLIBCXX_3.4.29', 'CXXABI_1.3.9'],
      }),
      object({
        'libm.so.6': ['GLIBC_2.29'],
        'libz.so.1': [],
        'libgcc_s.so.1': ['GCC_3.0'],
        'ld-linux-x86-64.so.2': ['GLIBC_2.3'],
      }),
    ];
    expect(sharedDepends(objects, new Set(), '12')).toEqual({
      depends: ['libc6 (>= 2.29)', 'libgcc-s1 (>= 3.0)', 'libstdc++6 (>= 11)', 'zlib1g'],
      unknown: [],
    });
  });

  it('counts what the package brings as there, and names what nobody has', () => {
    const objects = [
      object({ 'libtiff-13a02c81.so.6.1.0': [], 'libown.so.1': [], 'libcuda.so.1': [] }),
      object({}, 'libown.so.1'),
    ];
    expect(sharedDepends(objects, new Set(['libtiff-13a02c81.so.6.1.0']), '12')).toEqual({
      depends: [],
      unknown: ['libcuda.so.1'],
    });
  });

  it('knows the names of 64-bit time', () => {
    const objects = [object({ 'libssl.so.3': [], 'libffi.so.8': [] })];
    expect(sharedDepends(objects, new Set(), '12').depends).toEqual(['libffi8', 'libssl3']);
    expect(sharedDepends(objects, new Set(), '13').depends).toEqual(['libffi8', 'libssl3t64']);
  });
});

describe('readElf', () => {
  it('reads a program of this machine, and takes every cut and every flipped byte of it calmly', async () => {
    const whole = await readFile('/bin/true');
    const needs = readElf(whole)!;
    expect(needs.needed).toContain('libc.so.6');
    expect(needs.versions.get('libc.so.6')!.every((name) => /^GLIBC_/.test(name))).toBe(true);
    for (let size = 0; size < 4096; size += 97) readElf(whole.subarray(0, size));
    for (let at = 0; at < 2048; at += 1) {
      const copy = Buffer.from(whole);
      copy[at] = copy[at]! ^ 0xff;
      readElf(copy);
    }
  });

  it('knows what is none', () => {
    expect(readElf(Buffer.from('#!/bin/sh'))).toBeUndefined();
    expect(readElf(Buffer.alloc(100))).toBeUndefined();
  });
});
