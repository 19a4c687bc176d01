import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * Bytes of buffers that something still holds. What is only waiting for the collector does not count: how much of that there is
 * says how busy the machine is, not what the code keeps.
 */
export function heldBufferBytes(): number {
  collect ??= garbageCollector();
  collect();
  return process.memoryUsage().arrayBuffers;
}

/** The same with what is held as strings and objects. */
export function heldBytes(): number {
  const buffers = heldBufferBytes();
  return buffers + process.memoryUsage().heapUsed;
}

let collect: (() => void) | undefined;

function garbageCollector(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc');
}
