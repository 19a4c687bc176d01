import { describe, expect, it } from 'vitest';
import { table } from '../../../src/cli/command.ts';
import { errorAsData, renderError } from '../../../src/cli/render.ts';
import {
  exitCodeOf,
  InterruptedError,
  ProblemsError,
  RemoteError,
  ToolError,
  UsageError,
  UserError,
} from '../../../src/core/errors.ts';

const facts = { version: '1.2.3', runtime: 'node v24', verbose: false };

describe('errors', () => {
  it('show place, message and next step', () => {
    const error = new UserError('bad-field', "no field 'Package'", {
      file: 'control',
      line: 3,
      column: 1,
      hint: 'add one',
    });
    expect(renderError(error, facts)).toBe("error: control:3:1: no field 'Package'\nhint: add one\n");
  });

  it('list every problem of a check', () => {
    const error = new ProblemsError('check-failed', '2 problems', [
      { code: 'a', message: 'first', file: 'f', line: 2 },
      { code: 'b', message: 'second', subject: 'hello', hint: 'mend it' },
    ]);
    expect(renderError(error, facts)).toBe('error: 2 problems\n  f:2: first\n  hello: second\n    hint: mend it\n');
  });

  it('show the end of stderr, the command to paste and the log of a program', () => {
    const error = new ToolError('tool-failed', "'x' failed with exit code 2", {
      command: 'x -y',
      stderrTail: 'one\ntwo\n',
      logFile: '/l',
      status: 2,
    });
    expect(renderError(error, facts)).toBe(
      "error: 'x' failed with exit code 2\n  | one\n  | two\n  command: x -y\n  log: /l\n",
    );
  });

  it('let no input steer the terminal', () => {
    expect(renderError(new UserError('x', 'name \u001b]0;owned\u0007'), facts)).not.toMatch(/[\u001b\u0007]/);
  });

  it('say that a bug is a bug, with versions and trace', () => {
    const text = renderError(new TypeError('x is not a function'), facts);
    expect(text).toContain('this is a bug in buildkit');
    expect(text).toContain('buildkit 1.2.3, node v24');
    expect(text).toContain('render.test.ts');
  });

  it('have the exit codes of the design', () => {
    const command = { command: 'x' };
    const errors = [
      new UserError('a', ''),
      new UsageError(''),
      new ToolError('a', '', command),
      new RemoteError('a', '', { url: 'u' }),
      new InterruptedError(2),
      new Error('x'),
    ];
    expect(errors.map(exitCodeOf)).toEqual([1, 2, 3, 4, 130, 70]);
  });

  it('are data with --json', () => {
    const data = errorAsData(
      new RemoteError('http-status', 'the server answered 404', { url: 'http://h/x', status: 404 }),
    );
    expect(data).toEqual({
      error: expect.objectContaining({ code: 'http-status', url: 'http://h/x', status: 404, exitCode: 4 }),
    });
  });
});

describe('tables', () => {
  it('line columns up and end no line with blanks', () => {
    expect(
      table([
        ['a', 'bb', 'c'],
        ['aaa', 'b', ''],
      ]),
    ).toBe('a    bb  c\naaa  b');
  });
});
