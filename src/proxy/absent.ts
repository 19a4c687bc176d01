/**
 * What upstream did not have moments ago, and what it is about to have: so that it is not asked again at once by everybody.
 *
 * Secret: for how long either is believed.
 */
export interface Absent {
  has(key: string): boolean;
  note(key: string): void;
  drop(key: string): void;
  clear(): void;
  /** True while it is worth waiting for `key`, which upstream does not have although it says so; counted from the first call. */
  mayStillCome(key: string): boolean;
}

const ABSENT_MS = 10_000;
const MOST = 10_000;

/**
 * @param clock milliseconds, monotonic
 * @param publishWaitMs how long a client waits for upstream to finish publishing
 */
export function createAbsent(clock: () => number, publishWaitMs: number): Absent {
  const absent = new Map<string, number>();
  const awaited = new Map<string, number>();
  return {
    has(key) {
      const until = absent.get(key);
      if (until === undefined) return false;
      if (until > clock()) return true;
      absent.delete(key);
      return false;
    },
    note(key) {
      if (absent.size >= MOST) absent.clear();
      absent.set(key, clock() + ABSENT_MS);
    },
    drop: (key) => void absent.delete(key),
    clear() {
      absent.clear();
      awaited.clear();
    },
    mayStillCome(key) {
      const now = clock();
      let until = awaited.get(key);
      if (until === undefined || until + ABSENT_MS < now) {
        if (awaited.size >= MOST) awaited.clear();
        until = now + publishWaitMs;
        awaited.set(key, until);
      }
      return now <= until;
    },
  };
}
