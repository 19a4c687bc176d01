/** `buildkit config`: the configuration in force and the schema of the file. */
import type { Command } from 'commander';
import { configJsonSchema, formatOrigin } from '../core/config.ts';
import { configSchema } from '../release/config.ts';
import { type Cli, table } from './command.ts';

export function addConfigCommands(program: Command, cli: Cli): void {
  const config = program.command('config').description('the configuration and where each value comes from');
  config
    .command('show')
    .description('print each value and where it came from (flag, environment, file, default)')
    .action(
      cli.action(async (cx) => {
        const loaded = await cx.loadedConfig();
        const entries = [
          ...loaded.entries.map(({ key, value, origin }) => ({ key, value, origin: formatOrigin(origin) })),
          { key: '(state folder)', value: cx.stateDir, origin: cx.stateOrigin },
        ];
        return {
          data: entries,
          text: table(entries.map(({ key, value, origin }) => [key, JSON.stringify(value), `# ${origin}`])),
        };
      }),
    );
  config
    .command('schema')
    .description('print the JSON Schema of buildkit.yaml, for editors')
    .action(
      cli.action(async () => {
        const schema = configJsonSchema(configSchema, 'buildkit.yaml');
        return { data: schema, text: JSON.stringify(schema, undefined, 2) };
      }),
    );
}
