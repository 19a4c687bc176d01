/** npm's configuration files and variables as options of its libraries. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Context } from '../../../src/core/context.ts';
import { parseNpmrc, readNpmOptions } from '../../../src/pkg/node/npmrc.ts';

let home: string;

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'npmrc-'));
});

afterEach(() => rm(home, { recursive: true }));

/** Only what the reader looks at; no file of this machine counts. */
function context(env: Record<string, string> = {}): Context {
  return { env: { HOME: home, npm_config_globalconfig: join(home, 'global'), ...env } } as unknown as Context;
}

const variable = (name: string) => ['$', '{', name, '}'].join('');

describe('npmrc', () => {
  it('reads keys, comments, quotes, bare words and variables', () => {
    const text = [
      '; a comment',
      '# another',
      'registry = https://example.org/npm/ ; said here',
      `//example.org/npm/:_authToken=${variable('TOKEN')}`,
      '@acme:registry="https://acme.example/"',
      'legacy-peer-deps',
      `proxy=${variable('ABSENT?')}`,
      `noproxy=${variable('ABSENT')}`,
    ].join('\n');
    expect(Object.fromEntries(parseNpmrc(text, { TOKEN: 'secret' }))).toEqual({
      registry: 'https://example.org/npm/',
      '//example.org/npm/:_authToken': 'secret',
      '@acme:registry': 'https://acme.example/',
      'legacy-peer-deps': 'true',
      proxy: '',
      noproxy: variable('ABSENT'),
    });
  });

  it('lets the stronger place win: global, user, project, environment', async () => {
    const project = join(home, 'project');
    await writeFile(join(home, 'global'), 'registry=https://global.example/\nfetch-timeout=7\nmaxsockets=3\n');
    await writeFile(join(home, '.npmrc'), 'registry=https://user.example/\nstrict-ssl=false\nmaxsockets=4\n');
    const plain = await readNpmOptions(context());
    expect(plain).toMatchObject({ registry: 'https://user.example/', timeout: 7, maxSockets: 4, strictSSL: false });
    await mkdir(project);
    await writeFile(join(project, '.npmrc'), 'registry=https://project.example/\n');
    expect(await readNpmOptions(context(), project)).toMatchObject({ registry: 'https://project.example/' });
    const env = { npm_config_registry: 'https://env.example/', 'npm_config_//env.example/:_authToken': 't' };
    expect(await readNpmOptions(context(env), project)).toMatchObject({
      registry: 'https://env.example/',
      '//env.example/:_authToken': 't',
    });
  });

  it('reads certificates relative to the file that names them, one text each', async () => {
    const pem = (body: string) => `-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----`;
    await writeFile(join(home, 'ca.pem'), `# two\n${pem('QQ==')}\n${pem('Qg==')}\n`);
    await writeFile(join(home, '.npmrc'), 'cafile=ca.pem\n');
    expect((await readNpmOptions(context())).ca).toEqual([pem('QQ=='), pem('Qg==')]);
  });

  it('names the certificate that is missing and the file that wants it', async () => {
    await writeFile(join(home, '.npmrc'), 'cafile=/nowhere/ca.pem\n');
    await expect(readNpmOptions(context())).rejects.toMatchObject({
      code: 'npm-config',
      file: join(home, '.npmrc'),
      message: expect.stringContaining("'/nowhere/ca.pem'"),
    });
  });
});
