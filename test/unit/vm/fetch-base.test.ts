import { describe, expect, it } from 'vitest';
import { baseName } from '../../../src/vm/fetch-base.ts';

describe('baseName', () => {
  it.each([
    ['https://example.org/x/debian-12-genericcloud-amd64.qcow2', 'debian-12-genericcloud-amd64'],
    ['https://example.org/a/Disk_1.raw.xz?token=a.b', 'disk-1'],
    ['images/noble.img', 'noble'],
    ['/dev/vdb', 'vdb'],
    ['.hidden.qcow2.gz', 'hidden'],
  ])('%s is %s', (source, name) => {
    expect(baseName(source)).toBe(name);
  });
});
