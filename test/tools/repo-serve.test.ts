/** The server as a program: HTTPS with real apt, its log, signals. */
import { once } from 'node:events';
import { readFile, rename, truncate, writeFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { connect } from 'node:net';
import { join, resolve } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { describe, expect, it } from 'vitest';
import { run, start } from '../../src/core/run.ts';
import type { Repo } from '../../src/repo/repo.ts';
import { serveRepo } from '../../src/repo/serve.ts';
import { createAptRoot } from '../support/apt-root.ts';
import { publishedRepo } from '../support/published-repo.ts';
import { createWorld, type World } from '../support/world.ts';

const PROGRAM = resolve(import.meta.dirname, '../../bin/buildkit');
const PATIENCE = { timeout: 60_000, interval: 20 };

/** A certificate for 127.0.0.1; `name` tells one from the next. */
async function makeCertificate(folder: string, name: string): Promise<{ readonly cert: string; readonly key: string }> {
  const files = { cert: join(folder, `${name}.crt`), key: join(folder, `${name}.key`) };
  const line = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const subject = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1'];
  await run({}, 'openssl', [...line, ...subject, '-keyout', files.key, '-out', files.cert]);
  return files;
}

async function nameServed(port: number): Promise<string> {
  const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const name = socket.getPeerCertificate().subject.CN;
  socket.destroy();
  return String(name);
}

interface Running extends AsyncDisposable {
  readonly port: number;
  kill(signal: NodeJS.Signals): void;
  readonly exitCode: Promise<number | undefined>;
}

/** `repo serve` as a program of its own. */
async function serveProgram(world: World, repo: Repo, ...options: string[]): Promise<Running> {
  const line = ['--state', world.context.stateDir, 'repo', 'serve', '--repo', repo.dir, '--listen', '127.0.0.1:0'];
  const program = start({}, PROGRAM, [...line, ...options]);
  let said = '';
  for await (const chunk of program.stdout!) {
    said += String(chunk);
    if (said.includes('\n')) break;
  }
  const kill = (signal: NodeJS.Signals) => void program.kill(signal);
  const port = Number(new URL(said.trim()).port);
  return { port, kill, exitCode: program.exitCode, [Symbol.asyncDispose]: () => program[Symbol.asyncDispose]() };
}

describe('HTTPS', () => {
  it('is what apt asks over, and a certificate that changed is taken', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world, 'hello');
    const first = await makeCertificate(world.path, 'first');
    const files = { cert: join(world.path, 'live.crt'), key: join(world.path, 'live.key') };
    const put = async (from: { cert: string; key: string }) => {
      for (const part of ['key', 'cert'] as const) {
        await writeFile(`${files[part]}.new`, await readFile(from[part]));
        await rename(`${files[part]}.new`, files[part]);
      }
    };
    await put(first);
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0', tls: files, watchMs: 20 });
    const sources = await repo.sources('bookworm', { url: server.url });
    expect(sources).toContain('URIs: https://127.0.0.1:');
    await using apt = await createAptRoot({ sources, configuration: [`Acquire::https::CaInfo "${first.cert}";`] });
    await apt.update();
    expect((await apt.run('apt-get', 'download', 'hello')).exitCode).toBe(0);
    await using stranger = await createAptRoot({ sources });
    await expect(stranger.update()).rejects.toThrow();
    const second = await makeCertificate(world.path, 'second');
    await writeFile(files.key, await readFile(second.key)); // half of a renewal: the old pair stays
    await expect.poll(() => world.warnings.join(), PATIENCE).toContain('the certificate in use stays');
    expect(await nameServed(server.port)).toBe('first');
    await put(second);
    await expect.poll(() => nameServed(server.port), PATIENCE).toBe('second');
    await expect(
      serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0', tls: { cert: first.cert, key: second.key } }),
    ).rejects.toMatchObject({ code: 'bad-certificate' });
  });
});

describe('repo serve', () => {
  it('opens its log and takes its certificate anew on SIGHUP', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world, 'hello');
    const { cert, key } = await makeCertificate(world.path, 'first');
    const log = join(world.path, 'access.log');
    await using server = await serveProgram(world, repo, '--tls-cert', cert, '--tls-key', key, '--access-log', log);
    const get = async (path: string) => {
      const asked = request({
        ...{ host: '127.0.0.1', port: server.port, path, rejectUnauthorized: false, agent: false },
        headers: { 'user-agent': 'a"b' },
      }).end();
      ((await once(asked, 'response')) as [IncomingMessage])[0].resume();
    };
    await get('/one');
    await expect
      .poll(() => readFile(log, 'utf8'), PATIENCE)
      .toMatch(/^127\.0\.0\.1 - - \[.+ \+0000\] "GET \/one HTTP\/1\.1" 404 10 "-" "a\\"b"\n$/);
    const second = await makeCertificate(world.path, 'second');
    await rename(second.cert, cert);
    await rename(second.key, key);
    await rename(log, `${log}.1`);
    server.kill('SIGHUP');
    await expect.poll(() => nameServed(server.port), PATIENCE).toBe('second');
    await get('/two');
    await expect.poll(() => readFile(log, 'utf8').catch(() => ''), PATIENCE).toContain('GET /two');
    expect(await readFile(`${log}.1`, 'utf8')).not.toContain('/two');
    server.kill('SIGTERM');
    expect(await server.exitCode).toBe(143);
  });

  it('lets downloads finish when it is stopped, and takes no new ones', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world, 'hello');
    const size = 64 * 1024 * 1024; // more than fits into buffers
    await writeFile(join(repo.publicDir, 'large.bin'), '');
    await truncate(join(repo.publicDir, 'large.bin'), size);
    await using server = await serveProgram(world, repo, '--grace', '600');
    const slow = connect(server.port, '127.0.0.1');
    slow.write('GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n');
    let received = 0;
    slow.on('data', (chunk) => {
      received += chunk.length;
    });
    await once(slow, 'data');
    slow.pause();
    server.kill('SIGTERM');
    const refused = () =>
      new Promise<string>((done) => {
        const other = connect(server.port, '127.0.0.1', () => done('connected'));
        other.on('error', (error: NodeJS.ErrnoException) => done(error.code ?? ''));
        other.on('connect', () => other.destroy());
      });
    await expect.poll(refused, PATIENCE).toBe('ECONNREFUSED');
    expect(received).toBeLessThan(size);
    slow.resume();
    await once(slow, 'close');
    expect(received).toBeGreaterThan(size);
    expect(await server.exitCode).toBe(143);
  });

  it('waits for nobody longer than --grace', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world, 'hello');
    await writeFile(join(repo.publicDir, 'large.bin'), '');
    await truncate(join(repo.publicDir, 'large.bin'), 64 * 1024 * 1024);
    await using server = await serveProgram(world, repo, '--grace', '0.2');
    const stuck = connect(server.port, '127.0.0.1');
    stuck.write('GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n');
    stuck.on('error', () => {});
    await once(stuck, 'readable');
    server.kill('SIGTERM');
    expect(await server.exitCode).toBe(143);
    stuck.destroy();
  });
});
