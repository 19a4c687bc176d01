/**
 * `buildkit completion bash`: a script for bash that completes commands and options, made from the commands themselves.
 *
 * Secret: bash's programmable completion (bash(1), "Programmable Completion"). The script starts no program: it holds the tree.
 */
import type { Command } from 'commander';
import type { Cli } from './command.ts';
import { wholeProgram } from './program.ts';

export function addCompletionCommand(program: Command, cli: Cli): void {
  program
    .command('completion')
    .description('a completion script: buildkit completion bash > /etc/bash_completion.d/buildkit')
    .addArgument(program.createArgument('<shell>', 'which shell').choices(['bash']))
    .action(
      cli.action(async () => {
        const text = bashCompletion(await wholeProgram());
        return { data: { shell: 'bash', script: text }, text };
      }),
    );
}

interface Choices {
  /** Words of the command: 'repo add'; '' for the program itself. */
  readonly path: string;
  readonly words: readonly string[];
}

/** What can follow each command: its subcommands and long options, with those of the program. Pure. */
export function choicesOf(program: Command): Choices[] {
  const globals = longOptions(program);
  const visit = (command: Command, path: readonly string[]): Choices[] => {
    const children = command.commands.filter((child) => child.name() !== 'help');
    const own = command === program ? [] : longOptions(command);
    const words = [...children.map((child) => child.name()), ...[...new Set([...own, ...globals, '--help'])].sort()];
    return [{ path: path.join(' '), words }, ...children.flatMap((child) => visit(child, [...path, child.name()]))];
  };
  return visit(program, []);
}

function longOptions(command: Command): string[] {
  return command.options.filter((option) => !option.hidden).flatMap((option) => option.long ?? []);
}

/** Options of the program itself that take a value: the word behind them is no command. */
function valueOptions(program: Command): string[] {
  return program.options
    .filter((option) => option.required)
    .flatMap((option) => [option.short, option.long])
    .filter((one): one is string => one !== undefined && one !== null);
}

export function bashCompletion(program: Command): string {
  const choices = choicesOf(program);
  const cases = choices.map(({ path, words }) => `    '${path}') words='${words.join(' ')}' ;;`);
  const commands = choices.filter((one) => one.path !== '').map((one) => `'${one.path}'`);
  return `# bash completion for buildkit; made by: buildkit completion bash
_buildkit() {
  local cur=\${COMP_WORDS[COMP_CWORD]} path='' next='' words='' i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case \${COMP_WORDS[i]} in
      ${valueOptions(program).join('|')}) i=$((i + 1)) ;;
      -*) ;;
      *)
        next=\${path:+$path }\${COMP_WORDS[i]}
        case $next in
          ${commands.join('|')}) path=$next ;;
          *) break ;;
        esac ;;
    esac
  done
  case $path in
${cases.join('\n')}
  esac
  case $cur in
    -*) ;;
    *)
      # files and folders where no subcommand is to be chosen
      local subcommands=''
      for i in $words; do [[ $i == -* ]] || subcommands+="$i "; done
      words=$subcommands ;;
  esac
  local IFS=$' \\t\\n'
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _buildkit buildkit
`;
}
