import { describe, expect, it } from 'vitest';
import { findClashes } from '../../../src/pkg/file-conflicts.ts';
import { unitFolders } from '../../../src/pkg/python/service.ts';

const built = (name: string, ...paths: string[]) => ({ name, paths });

it('findClashes names every file with two owners', () => {
  expect(findClashes([built('b', '/usr/x', '/usr/y'), built('a', '/usr/x'), built('c', '/usr/z')])).toEqual([
    { path: '/usr/x', owners: ['a', 'b'] },
  ]);
});

describe('unitFolders', () => {
  it('reads the folders that systemd makes, and nothing that could reach elsewhere', () => {
    const unit =
      '[Service]\nStateDirectory=shop shop/data:link\nLogsDirectory = shop\nCacheDirectory=../../etc\nStateDirectory=%i x;y\nRuntimeDirectory=r\n';
    expect(unitFolders(unit)).toEqual(['/var/lib/shop', '/var/lib/shop/data', '/var/log/shop']);
  });
});
