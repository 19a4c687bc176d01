import { describe, expect, it } from 'vitest';
import {
  aptComplaints,
  httpFetch,
  judgeHttp,
  newPackages,
  packageNameOf,
  parseHttpAnswer,
  parseInstalled,
} from '../../../src/vm/test-judge.ts';

describe('aptComplaints', () => {
  const output = [
    'Get:1 http://10.0.2.2:8080 bookworm InRelease',
    'Ign:2 http://10.0.2.2:8080 bookworm/main all Packages',
    'Ign:3 http://mirror.example/debian bookworm/main Translation-de',
    'W: Target Packages is configured multiple times',
    'Err:4 http://mirror.example/debian bookworm InRelease',
    'E: Unable to locate package x',
    'Setting up E: drive',
  ].join('\n');

  it('finds warnings, errors, and what our own repository lacks', () => {
    expect(aptComplaints(output, ['http://10.0.2.2:8080'])).toEqual([
      'Ign:2 http://10.0.2.2:8080 bookworm/main all Packages',
      'W: Target Packages is configured multiple times',
      'Err:4 http://mirror.example/debian bookworm InRelease',
      'E: Unable to locate package x',
    ]);
  });
});

describe('packages', () => {
  it('counts only what is configured', () => {
    const before = parseInstalled('installed\ta\t1\nconfig-files\tb\t1\n');
    const after = parseInstalled('installed\ta\t2\ninstalled\tb\t1\nhalf-configured\tc\t1\n');
    expect(newPackages(before, after)).toEqual([
      { name: 'a', version: '2' },
      { name: 'b', version: '1' },
    ]);
  });

  it.each(['hello', 'hello=2.12-1', 'hello/bookworm', 'hello:amd64'])('knows the name in %s', (request) => {
    expect(packageNameOf(request)).toBe('hello');
  });
});

describe('HTTP in the guest', () => {
  it('hands every part over as a word of its own', () => {
    expect(httpFetch('http://127.0.0.1:8080/a?b=c', 60).slice(-6)).toEqual([
      '127.0.0.1',
      '8080',
      '/a?b=c',
      '127.0.0.1:8080',
      'plain',
      '60',
    ]);
    expect(httpFetch('https://[::1]/', 5).slice(-6)).toEqual(['::1', '443', '/', '[::1]', 'tls', '5']);
  });

  it('splits head and body', () => {
    expect(parseHttpAnswer('HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello\n')).toEqual({ status: 200, body: 'hello\n' });
    expect(parseHttpAnswer('HTTP/1.0 204 No Content\r\n\r\n')).toEqual({ status: 204, body: '' });
    expect(parseHttpAnswer('SSH-2.0-OpenSSH')).toBeUndefined();
  });

  it('judges', () => {
    const answer = { status: 200, body: 'hello world' };
    expect(judgeHttp(answer, {})).toBeUndefined();
    expect(judgeHttp(answer, { contains: 'world' })).toBeUndefined();
    expect(judgeHttp(answer, { contains: 'moon' })).toMatch(/does not contain 'moon'/);
    expect(judgeHttp(answer, { status: 404 })).toBe('the answer is 200, expected 404');
    expect(judgeHttp(undefined, {})).toBe('the answer is no HTTP');
  });
});
