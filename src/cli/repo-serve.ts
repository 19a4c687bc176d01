/** `buildkit repo serve`: a repository over HTTP or HTTPS. */
import { resolve } from 'node:path';
import { UsageError } from '../core/errors.ts';
import type { ServeOptions } from '../repo/serve.ts';
import type { Cli, CommandContext } from './command.ts';
import { type Place, placeOf, type Row } from './repo-place.ts';

interface ServeRowOptions extends Place {
  readonly listen?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly accessLog?: string;
  readonly grace: string;
  readonly maxUpload: string;
  readonly uploadTime: string;
  readonly uploadsPerMinute: string;
}

export function addServe(row: Row, cli: Cli): void {
  row('serve', 'serve it over HTTP or HTTPS until interrupted')
    .option('--listen <address>', 'HOST:PORT; default: repo.listen of buildkit.yaml')
    .option('--tls-cert <file>', 'HTTPS with this certificate, its chain after it (PEM)')
    .option('--tls-key <file>', 'and this key (PEM); both are read anew when they change, and on SIGHUP')
    .option('--access-log <file>', 'a line for each answer in the combined format; opened anew on SIGHUP')
    .option('--grace <seconds>', 'when stopped, downloads under way have so long to finish', '30')
    .option('--max-upload <megabytes>', 'a longer upload is refused', '2048')
    .option('--upload-time <seconds>', 'an upload that takes longer is ended', '3600')
    .option('--uploads-per-minute <n>', 'of one token', '300')
    .action(
      cli.action(async (cx, options: ServeRowOptions) => {
        const { serveRepo } = await import('../repo/serve.ts');
        const grace = numberOf(options.grace, '--grace');
        const server = await serveRepo(cx, await placeOf(cx, options), await serveOptions(cx, options));
        try {
          using _ = cx.onHangup(() => void server.reload());
          cx.writeOut(cx.json ? `${JSON.stringify({ url: server.url })}\n` : `${server.url}/\n`);
          await interrupted(cx);
        } finally {
          await server.close(grace * 1000);
        }
        return undefined;
      }),
    );
}

async function serveOptions(cx: CommandContext, options: ServeRowOptions): Promise<ServeOptions> {
  const { tlsCert, tlsKey, accessLog } = options;
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new UsageError('--tls-cert and --tls-key belong together');
  }
  const path = (name: string) => resolve(cx.cwd, name);
  return {
    listen: options.listen ?? (await cx.config()).repo.listen,
    renew: true,
    tls: tlsCert === undefined ? undefined : { cert: path(tlsCert), key: path(tlsKey!) },
    accessLog: accessLog === undefined ? undefined : path(accessLog),
    maxUploadBytes: numberOf(options.maxUpload, '--max-upload') * 1e6,
    uploadSeconds: numberOf(options.uploadTime, '--upload-time'),
    writesPerMinute: numberOf(options.uploadsPerMinute, '--uploads-per-minute'),
  };
}

function numberOf(text: string, flag: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isFinite(value) && value >= 0) return value;
  throw new UsageError(`'${text}' is no number for ${flag}`);
}

/** Resolves when the user stops the program. */
function interrupted(cx: CommandContext): Promise<void> {
  return new Promise((done) => {
    if (cx.signal.aborted) done();
    cx.signal.addEventListener('abort', () => done(), { once: true });
  });
}
