/**
 * The client's side: the apt.conf.d line, and a check that falls back to going direct.
 *
 * Secret: apt.conf(5) `Acquire::http::Proxy-Auto-Detect`: apt runs a program with the address and uses the proxy that it prints,
 * or `DIRECT`. So a machine whose proxy is down, or which left the network, still updates.
 */
import { UserError } from '../core/errors.ts';

export interface ClientConfiguration {
  /** Path to content, with its mode. */
  readonly files: readonly { readonly path: string; readonly mode: number; readonly text: string }[];
}

const DETECT = '/usr/local/lib/buildkit/apt-proxy-detect';

export interface ClientOptions {
  /** Hosts that are asked without the proxy. */
  readonly direct: readonly string[];
  /** How long the proxy may take to answer; a network that swallows packets costs an update so much. Default 2. */
  readonly seconds?: number;
}

/** Files below `/etc/apt` and one script. @throws UserError `proxy-url` */
export function clientConfiguration(proxyUrl: string, options: ClientOptions): ClientConfiguration {
  const url = URL.parse(proxyUrl);
  if (
    url === null ||
    url.protocol !== 'http:' ||
    (url.pathname !== '/' && url.pathname !== '') ||
    !/^[\w.@:[\]-]+$/.test(proxyUrl.slice(7).replace(/\/$/, ''))
  ) {
    throw new UserError('proxy-url', `'${proxyUrl}' is no address of a proxy`, { hint: 'write http://HOST:9999' });
  }
  for (const host of options.direct) {
    if (!/^[a-z0-9.-]+$/i.test(host))
      throw new UserError('proxy-url', `'${host}' is no host`, { hint: 'write a host name' });
  }
  const base = proxyUrl.replace(/\/$/, '');
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const port = url.port === '' ? '80' : url.port;
  const { seconds = 2 } = options;
  const lines = [
    '# Written by: buildkit proxy configure. apt asks the script for each host: the proxy when it answers, else direct.',
    `Acquire::http::Proxy-Auto-Detect "${DETECT}";`,
    ...options.direct.map((name) => `Acquire::http::Proxy::${name} "DIRECT";`),
    '# https goes its own way: the proxy offers no tunnel unless told to.',
    'Acquire::https::Proxy "DIRECT";',
    '',
  ];
  const script = [
    '#!/bin/sh',
    `# Prints the proxy when it answers within ${seconds} seconds, else DIRECT (apt.conf(5), Proxy-Auto-Detect).`,
    `if timeout ${seconds} bash -c ': < "/dev/tcp/$0/$1"' '${host}' '${port}' 2>/dev/null; then`,
    `  echo '${base}'`,
    'else',
    '  echo DIRECT',
    'fi',
    '',
  ];
  return {
    files: [
      { path: '/etc/apt/apt.conf.d/30buildkit-proxy', mode: 0o644, text: lines.join('\n') },
      { path: DETECT, mode: 0o755, text: script.join('\n') },
    ],
  };
}
