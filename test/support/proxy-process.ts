/** A proxy in a process of its own, to be killed: `node proxy-process.ts SETTINGS.json` prints its address. */
import { readFileSync } from 'node:fs';
import { silentLog } from '../../src/core/log.ts';
import { serveProxy } from '../../src/proxy/serve.ts';
import type { ProxySettings } from '../../src/proxy/settings.ts';

const settings = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as ProxySettings;
const context = {
  env: process.env,
  signal: new AbortController().signal,
  log: silentLog(),
  now: () => new Date(),
  stateDir: settings.dir,
  cacheDir: settings.dir,
  programDir: settings.dir,
};
const proxy = await serveProxy(context, settings, { listen: ['127.0.0.1:0'] });
process.stdout.write(`${proxy.urls[0]}\n`);
