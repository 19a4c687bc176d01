/** npm's names and versions as Debian's names. */
import { describe, expect, it } from 'vitest';
import { debianAppName, debianLineName, debianNodeName, versionLine } from '../../../src/pkg/node/names.ts';

describe('names', () => {
  it.each([
    ['semver', 'node-semver'],
    ['@babel/core', 'node-babel-core'],
    ['JSONStream', 'node-jsonstream'],
    ['lodash._root', 'node-lodash.-root'],
    ['@Scope/Some_Thing', 'node-scope-some-thing'],
    ['node-fetch', 'node-node-fetch'],
  ])('%s is %s', (npm, debian) => {
    expect(debianNodeName(npm)).toBe(debian);
  });

  it('calls applications as they call themselves', () => {
    expect(debianAppName('hello-service')).toBe('hello-service');
    expect(debianAppName('@acme/Hello_Service')).toBe('hello-service');
  });

  it.each(['é', '_', '-', 'x'])('refuses %j, which leaves too little of a name', (name) => {
    expect(() => debianAppName(name)).toThrow(expect.objectContaining({ code: 'debian-name' }));
  });
});

describe('lines', () => {
  it.each([
    ['1.2.3', '1'],
    ['10.0.0', '10'],
    ['0.4.2', '0.4'],
    ['0.0.2', '0.0.2'],
    ['2.0.0-rc.1', '2.0.0-rc.1'],
    ['1.2.3+build-5', '1'],
  ])('%s is in line %s', (version, line) => {
    expect(versionLine(version)).toBe(line);
  });

  it('names the package of a line', () => {
    expect(debianLineName('@babel/core', '7')).toBe('node-babel-core-7');
    expect(debianLineName('x', '2.0.0-RC.1')).toBe('node-x-2.0.0-rc.1');
  });
});
