/** Starts the application with the addresses of the configuration file, and stops it on SIGTERM. */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { parse } from 'smol-toml';
import { createApp, version } from './app.js';

const DEFAULTS = { host: '127.0.0.1', port: <%= it.port %> };
const GRACE_MS = 10_000;

/** The configuration file as an object with the tables `server` and `app`. */
export function readConfig(path) {
  const config = parse(readFileSync(path, 'utf8'));
  return { server: { ...DEFAULTS, ...config.server }, app: config.app ?? {} };
}

/** Resolves once the application listens. */
export function listen({ server, app }) {
  return new Promise((resolve, reject) => {
    const listening = createApp(app).listen(Number(server.port), String(server.host), (error) =>
      error ? reject(error) : resolve(listening),
    );
  });
}

/** Returns the exit code; with 0 the server goes on until SIGTERM or SIGINT. */
export async function main(args) {
  const { values } = parseArgs({
    args,
    options: { config: { type: 'string', default: '/etc/<%= it.name %>/config.toml' }, version: { type: 'boolean' } },
  });
  if (values.version) {
    console.log(version);
    return 0;
  }
  try {
    const server = await listen(readConfig(values.config));
    for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => stop(server));
    return 0;
  } catch (error) {
    console.error(`<%= it.name %>: ${values.config}: ${error.message}`);
    return 1;
  }
}

/** Answers under way are finished, for a while. */
function stop(server) {
  server.close();
  setTimeout(() => server.closeAllConnections(), GRACE_MS).unref();
}
