import { describe, expect, it } from 'vitest';
import { ToolError, UserError } from '../../../src/core/errors.ts';
import { asStageError } from '../../../src/vm/base-root.ts';

const FAILED = "stage 'disk' of the base image failed";
const AGAIN = 'go on: add --from-stage disk to the command';
const stageError = (error: unknown) => asStageError(error, FAILED, AGAIN, '/s/x.log');
const tool = (stderrTail: string, code = 'tool-failed') =>
  new ToolError(code, "'setpriv' failed", { command: 'setpriv -- mke2fs', stderrTail, status: 1 });

describe('asStageError', () => {
  it('names the stage, the log and how to go on', () => {
    expect(stageError(tool('mke2fs: no'))).toMatchObject({
      code: 'base-stage-failed',
      message: FAILED,
      hint: `see the log; then ${AGAIN}`,
      logFile: '/s/x.log',
      stderrTail: 'mke2fs: no',
    });
    expect(stageError(tool('', 'tool-timeout'))).toMatchObject({
      code: 'tool-timeout',
      message: `${FAILED}: 'setpriv' failed`,
    });
    expect(stageError(new UserError('base-no-kernel', 'no kernel', { hint: 'add one' }))).toMatchObject({
      code: 'base-no-kernel',
      message: `${FAILED}: no kernel`,
      hint: `add one; then ${AGAIN}`,
    });
  });

  it('says which program is missing behind those that start it', () => {
    const said = 'unshare: failed to execute mmdebstrap: No such file or directory\n';
    expect(stageError(tool(said))).toMatchObject({
      code: 'tool-missing',
      message: `${FAILED}: 'mmdebstrap' is not installed`,
      hint: `apt-get install mmdebstrap; then ${AGAIN}`,
    });
  });

  it('leaves a defect of our own alone', () => {
    const defect = new TypeError('x');
    expect(stageError(defect)).toBe(defect);
  });
});
