/**
 * Does a package install and work in a clean machine? apt from the given sources inside a throw-away clone, then the checks.
 *
 * Secret: which commands run in the guest and which of apt's lines mean failure.
 */
import type { Context } from '../core/context.ts';
import type { AptSource } from '../deb/sources.ts';

/** What must hold in the machine after the installation. */
export type PackageCheck =
  /** Fetched inside the guest. */
  | { readonly http: string; readonly status?: number | undefined; readonly contains?: string | undefined }
  /** Run by sh inside the guest. */
  | { readonly command: string }
  /** A systemd unit that must be active. */
  | { readonly service: string };

export interface TestRequest {
  readonly suite: string;
  /** Names as apt-get takes them: `hello`, `hello=2.12-1`. */
  readonly packages: readonly string[];
  /** As the guest sees them: the host's loopback is 10.0.2.2 (HOST_FROM_GUEST). */
  readonly sources: readonly AptSource[];
  readonly checks?: readonly PackageCheck[] | undefined;
  /** After the checks: remove, then purge; both must succeed. */
  readonly purge?: boolean | undefined;
  /** Leave the machine running when something failed, and say how to enter it. */
  readonly keepOnFailure?: boolean | undefined;
  readonly accel?: 'auto' | 'kvm' | 'tcg' | undefined;
  /** `1024M` */
  readonly memory?: string | undefined;
  readonly cpus?: number | undefined;
  /** Id or suite of the base; default: that of `suite`, built when there is none. */
  readonly base?: string | undefined;
  readonly mirror?: string | undefined;
}

export interface TestStep {
  /** `apt-get update` */
  readonly name: string;
  readonly passed: boolean;
  readonly durationMs: number;
  /** What was found, or the end of the output where it failed; control characters replaced. */
  readonly detail: string;
}

export interface TestReport {
  readonly passed: boolean;
  readonly suite: string;
  readonly base: string;
  readonly accel: 'kvm' | 'tcg';
  /** From the start of QEMU to a usable machine, milliseconds. */
  readonly bootMs: number;
  readonly packages: readonly { readonly name: string; readonly version: string }[];
  /** Every package that the installation brought or upgraded, `name` and `version`. */
  readonly steps: readonly TestStep[];
  /** Serial console, kept after the machine has gone. */
  readonly consoleLog: string;
  /** Everything that the commands in the guest printed. */
  readonly transcript: string;
  /** Name of the machine that was left running. */
  readonly kept?: string | undefined;
}

/** Address of this machine's loopback inside a guest on the user network: serve on 127.0.0.1:PORT, point apt at http://10.0.2.2:PORT. */
export const HOST_FROM_GUEST = '10.0.2.2';

/**
 * Runs the test. A package that fails is a report with `passed: false`; a machine that does not come up is thrown.
 * @throws UserError, ToolError `vm-not-ready`
 */
export function testPackages(_context: Context, _request: TestRequest): Promise<TestReport> {
  throw new Error('under way');
}

/** The report as text for people. */
export function formatTestReport(_report: TestReport): string {
  throw new Error('under way');
}
