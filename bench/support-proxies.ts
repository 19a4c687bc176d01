/** Starts an upstream (nginx) and the caches that are compared: buildkit, apt-cacher-ng, nginx proxy_cache and squid. */
import { readdirSync, readFileSync } from 'node:fs';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join, resolve } from 'node:path';
import { type RunningProgram, start } from '../src/core/run.ts';

export interface Cache extends AsyncDisposable {
  readonly name: string;
  readonly port: number;
  /** Address of a file of the archive for a client that takes the cache for a server; undefined: as a proxy only. */
  readonly direct: ((path: string) => string) | undefined;
  readonly pids: () => number[];
  /** Empties it. */
  restart(): Promise<void>;
}

export interface Bed {
  readonly dir: string;
  /** `host:port` of the upstream. */
  readonly upstream: string;
  readonly keyring: string;
}

/** As users start it: the launcher chooses Node's options. */
const BUILDKIT = resolve(import.meta.dirname, '../bin/buildkit');
const TEMPORARY = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];

export async function waitForPort(port: number): Promise<void> {
  for (let tries = 0; tries < 200; tries += 1) {
    const open = await new Promise<boolean>((done) => {
      const socket = connect({ host: '127.0.0.1', port });
      socket.once('connect', () => {
        socket.destroy();
        done(true);
      });
      socket.once('error', () => done(false));
    });
    if (open) return;
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error(`nothing listens on port ${port}`);
}

function nginxConf(dir: string, user: string, body: string): string {
  const temporary = TEMPORARY.map((name) => `${name}_temp_path ${dir}/${name};`).join(' ');
  return `${user}daemon off; worker_processes 1; pid ${dir}/pid; error_log ${dir}/error.log;
events { worker_connections 1024; }
http { sendfile on; tcp_nopush on; keepalive_requests 1000000; ${temporary} ${body} }\n`;
}

async function startNginx(dir: string, body: string, port: number): Promise<RunningProgram> {
  await mkdir(dir, { recursive: true });
  await chmod(dir, 0o777);
  await writeFile(join(dir, 'nginx.conf'), nginxConf(dir, 'user root;\n', body));
  const program = start({}, '/usr/sbin/nginx', ['-c', join(dir, 'nginx.conf')], {
    stdio: { stdin: 'ignore', stdout: 'ignore' },
  });
  await waitForPort(port);
  return program;
}

/** Serves `www` on `port`; one line a request in `dir/access.log`. */
export function startUpstream(dir: string, www: string, port: number): Promise<RunningProgram> {
  const body = `log_format short '$request_uri $status'; access_log ${dir}/access.log short; server { listen 127.0.0.1:${port}; root ${www}; }`;
  return startNginx(dir, body, port);
}

/** A process and all that it started. */
function family(pid: number): number[] {
  const children = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        return (
          Number(
            readFileSync(`/proc/${name}/stat`, 'utf8')
              .replace(/^.*\) /s, '')
              .split(' ')[1],
          ) === pid
        );
      } catch {
        return false;
      }
    });
  return [pid, ...children.flatMap((child) => family(Number(child)))];
}

/** CPU seconds so far. */
export function cpuSeconds(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ');
      return sum + (Number(fields[11]) + Number(fields[12])) / 100;
    } catch {
      return sum;
    }
  }, 0);
}

export function residentMiB(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    try {
      return sum + Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;
    } catch {
      return sum;
    }
  }, 0);
}

async function makeCache(
  name: string,
  port: number,
  direct: Cache['direct'],
  launch: (round: number) => Promise<RunningProgram>,
): Promise<Cache> {
  let round = 0;
  let program = await launch(round);
  return {
    name,
    port,
    direct,
    pids: () => family(program.pid),
    async restart() {
      await program[Symbol.asyncDispose]();
      round += 1;
      program = await launch(round);
    },
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  };
}

export async function startBuildkit(bed: Bed, port: number): Promise<Cache> {
  return makeCache(
    'buildkit',
    port,
    (path) => `http://127.0.0.1:${port}/bench/${path}`,
    async (round) => {
      const dir = join(bed.dir, `buildkit${round}`);
      await mkdir(dir, { recursive: true });
      const config = [
        'proxy:',
        `  keyrings: [${JSON.stringify(bed.keyring)}]`,
        '  backends:',
        `    bench: { mirrors: ["http://${bed.upstream}/archive"], signatures: require }`,
      ];
      await writeFile(join(dir, 'buildkit.yaml'), `${config.join('\n')}\n`);
      const args = ['-C', dir, '--state', dir, 'proxy', 'serve', '--listen', `127.0.0.1:${port}`];
      const program = start({}, BUILDKIT, args, { stdio: { stdin: 'ignore', stdout: 'ignore' } });
      await waitForPort(port);
      return program;
    },
  );
}

export async function startNginxCache(bed: Bed, port: number): Promise<Cache> {
  return makeCache(
    'nginx',
    port,
    (path) => `http://127.0.0.1:${port}/archive/${path}`,
    async (round) => {
      const dir = join(bed.dir, `nginx${round}`);
      const body = `access_log off; proxy_cache_path ${dir}/cache levels=1:2 keys_zone=c:10m max_size=4g; server { listen 127.0.0.1:${port};
location / { proxy_pass http://${bed.upstream}; proxy_cache c; proxy_cache_valid 200 1h; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host ${bed.upstream}; proxy_max_temp_file_size 2048m; } }`;
      return startNginx(dir, body, port);
    },
  );
}

export async function startAcng(bed: Bed, port: number): Promise<Cache> {
  return makeCache(
    'apt-cacher-ng',
    port,
    (path) => `http://127.0.0.1:${port}/${bed.upstream}/archive/${path}`,
    async (round) => {
      const dir = join(bed.dir, `acng${round}`);
      await mkdir(join(dir, 'cache'), { recursive: true });
      await mkdir(join(dir, 'log'), { recursive: true });
      const settings = [
        `CacheDir=${dir}/cache`,
        `LogDir=${dir}/log`,
        `Port=${port}`,
        'BindAddress=127.0.0.1',
        'ForeGround=1',
        'PfilePatternEx=.*\\.deb$',
        'SocketPath=',
        'PidFile=',
        'AllowUserPorts=0',
      ];
      const program = start({}, '/usr/sbin/apt-cacher-ng', ['-c', '/etc/apt-cacher-ng', ...settings], {
        stdio: { stdin: 'ignore', stdout: 'ignore' },
      });
      await waitForPort(port);
      return program;
    },
  );
}

export async function startSquid(bed: Bed, port: number): Promise<Cache> {
  return makeCache('squid', port, undefined, async (round) => {
    const dir = join(bed.dir, `squid${round}`);
    await mkdir(join(dir, 'cache'), { recursive: true });
    for (const folder of [dir, join(dir, 'cache')]) await chmod(folder, 0o777);
    const conf = [
      `http_port 127.0.0.1:${port}`,
      'http_access allow all',
      `cache_dir ufs ${dir}/cache 4000 16 256`,
      'maximum_object_size 1 GB',
      'cache_mem 64 MB',
      'collapsed_forwarding on',
      'refresh_pattern . 3600 100% 4320',
      'access_log none',
      `cache_log ${dir}/cache.log`,
      'cache_store_log none',
      `pid_filename ${dir}/pid`,
      `coredump_dir ${dir}`,
      'shutdown_lifetime 0 seconds',
      'pinger_enable off',
      `netdb_filename none`,
    ];
    await writeFile(join(dir, 'squid.conf'), `${conf.join('\n')}\n`);
    await using making = start({}, '/usr/sbin/squid', ['-N', '-z', '-f', join(dir, 'squid.conf')], {
      stdio: { stdin: 'ignore', stdout: 'ignore' },
    });
    await making.exitCode;
    const program = start({}, '/usr/sbin/squid', ['-N', '-f', join(dir, 'squid.conf')], {
      stdio: { stdin: 'ignore', stdout: 'ignore' },
    });
    await waitForPort(port);
    return program;
  });
}
