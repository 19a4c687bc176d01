/** `buildkit doctor`: the table of what this machine has and lacks. */
import { type Command, Option } from 'commander';
import {
  aptGetInstallArgs,
  checkMachine,
  type DoctorGoal,
  installPackages,
  missingPackages,
} from '../release/doctor.ts';
import { type Cli, table } from './command.ts';

export function addDoctorCommand(program: Command, cli: Cli): void {
  program
    .command('doctor')
    .description('what this machine has and lacks, and the line that mends it; exit 1 when a program is missing')
    .addOption(
      new Option('--for <goal>', 'what is to be done').choices(['use', 'quickstart', 'test', 'bench']).default('use'),
    )
    .option('--install', 'install what is missing with apt-get (as root or through sudo)')
    .action(
      cli.action(async (cx, options: { for: DoctorGoal; install?: boolean }) => {
        let findings = await checkMachine(cx, options.for);
        let missing = missingPackages(findings);
        if (options.install && missing.length > 0) {
          await installPackages(cx, missing);
          findings = await checkMachine(cx, options.for);
          missing = missingPackages(findings);
        }
        const mend = missing.length === 0 ? [] : ['', `to mend: apt-get ${aptGetInstallArgs(missing).join(' ')}`];
        return {
          data: { findings, missing },
          text: [table(findings.map((one) => [one.status, one.name, one.detail])), ...mend].join('\n'),
          exitCode: missing.length === 0 ? 0 : 1,
        };
      }),
    );
}
