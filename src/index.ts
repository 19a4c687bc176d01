/** The library: what other programs may use of buildkit. Re-exports only. */
export type { Context, RunContext } from './core/context.ts';
export { BuildkitError, type Problem, ProblemsError, RemoteError, ToolError, UserError } from './core/errors.ts';
export { createLog, type Log, silentLog } from './core/log.ts';
export * from './deb/arch.ts';
export { type DebInfo, extractDeb, listDeb, readDeb, readDebs, writeDeb } from './deb/archive.ts';
export * from './deb/changelog.ts';
export * from './deb/control.ts';
export * from './deb/package.ts';
export * from './deb/relation.ts';
export * from './deb/sources.ts';
export * from './deb/suites.ts';
export * from './deb/version.ts';
export { type BuildRequest, type BuildResult, buildPackages, planBuild } from './pkg/build.ts';
export { KeyStore } from './repo/keys.ts';
export { Repo } from './repo/repo.ts';
export { serveRepo } from './repo/serve.ts';
export { buildBase } from './vm/base.ts';
export { createVm, listVms, type MachineOptions, type MachineStatus } from './vm/machine.ts';
export { testPackages } from './vm/test.ts';
export {
  bootVm,
  collectGarbage,
  destroyVm,
  openVm,
  type StartOptions,
  type StopMeans,
  startVm,
  stopVm,
  type Vm,
  type VmSpec,
} from './vm/vm.ts';
