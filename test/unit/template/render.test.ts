import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Context } from '../../../src/core/context.ts';
import { silentLog } from '../../../src/core/log.ts';
import { renderTemplate, renderText } from '../../../src/template/render.ts';

const PROGRAM_DIR = join(import.meta.dirname, '../../..');
let scratch: string;

beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'buildkit-template-'));
});
afterEach(() => rm(scratch, { recursive: true, force: true }));

function context(programDir = PROGRAM_DIR): Context {
  return {
    env: { PATH: '/usr/bin:/bin', DEBFULLNAME: 'Ada "A" Lovelace', DEBEMAIL: 'ada@example.org' },
    signal: new AbortController().signal,
    log: silentLog(),
    now: () => new Date(0),
    stateDir: join(scratch, 'state'),
    cacheDir: join(scratch, 'cache'),
    programDir,
  };
}

async function ownTemplate(files: Record<string, string>): Promise<Context> {
  for (const [path, text] of Object.entries(files)) {
    const full = join(scratch, 'templates/own', path);
    await mkdir(join(full, '..'), { recursive: true });
    await writeFile(full, text);
  }
  return context(scratch);
}

describe('renderText', () => {
  const answers = { values: { name: 'x', port: '1' }, user: { name: 'n', email: 'e' } };

  it('fills in names and leaves the marks of other languages alone', () => {
    expect(renderText('<%= it.name %> {{ it.name }} $(name) %name%\n\n', answers, 'f')).toBe(
      'x {{ it.name }} $(name) %name%\n\n',
    );
  });

  it('does not escape', () => {
    expect(renderText('<%= it.name %>', { ...answers, values: { name: '<&"' } }, 'f')).toBe('<&"');
  });

  it.each(['nmae', 'constructor', '__proto__', 'toString'])('throws on the unknown name %s', (name) => {
    expect(() => renderText(`<%= it.${name} %>`, answers, 'f.txt')).toThrow(
      expect.objectContaining({ code: 'template-unknown-name', file: 'f.txt' }),
    );
  });
});

describe('renderTemplate', () => {
  it('renders python-service: answers reach names, TOML and Python', async () => {
    const target = join(scratch, 'my-shop');
    const values = { description: 'says "hi" \\ often', port: '9001' };
    const result = await renderTemplate(context(), { template: 'python-service', target, values });
    expect(result.values).toMatchObject({
      name: 'my-shop',
      module: 'my_shop',
      port: '9001',
      author: 'Ada "A" Lovelace',
    });
    expect(result.files).toContain('src/my_shop/app.py');
    expect(result.files).toContain('packaging/my-shop.service');
    const pyproject = await readFile(join(target, 'pyproject.toml'), 'utf8');
    expect(pyproject).toContain('description = "says \\"hi\\" \\\\ often"');
    const all = await Promise.all(result.files.map((file) => readFile(join(target, file), 'utf8')));
    expect(all.join('')).not.toMatch(/<%|%>|hello[-_]service/);
  });

  it('asks what was not given and takes an empty answer as the default', async () => {
    const asked: string[] = [];
    const result = await renderTemplate(context(), {
      template: 'python-service',
      target: join(scratch, 'a1'),
      values: { name: 'given' },
      ask: async (question) => {
        asked.push(question.key);
        return question.key === 'port' ? '99' : '';
      },
    });
    expect(asked).not.toContain('name');
    expect(asked).toContain('module');
    expect(result.values).toMatchObject({ name: 'given', module: 'given', port: '99' });
  });

  it('refuses a folder that is in use and leaves it as it was', async () => {
    await writeFile(join(scratch, 'mine'), 'x');
    await expect(
      renderTemplate(context(), { template: 'python-service', target: scratch, values: {} }),
    ).rejects.toMatchObject({
      code: 'target-not-empty',
    });
    expect(await readdir(scratch)).toEqual(['mine']);
  });

  it('takes an empty folder', async () => {
    const result = await renderTemplate(context(), {
      template: 'python-service',
      target: scratch,
      values: { name: 'abc' },
    });
    expect(await readdir(scratch)).toContain('pyproject.toml');
    expect(result.files.length).toBeGreaterThan(8);
  });

  it('names the nearest template and the nearest key', async () => {
    const target = join(scratch, 'new');
    await expect(renderTemplate(context(), { template: 'pyton-service', target, values: {} })).rejects.toMatchObject({
      code: 'unknown-template',
      hint: "did you mean 'python-service'?",
    });
    await expect(
      renderTemplate(context(), { template: 'python-service', target, values: { prot: '1' } }),
    ).rejects.toMatchObject({ code: 'template-unknown-key', hint: "did you mean 'port'?" });
  });

  it.each([
    ['name', 'Hello'],
    ['name', 'a--b'],
    ['port', '0'],
    ['email', 'nobody'],
    ['description', 'two\nlines'],
  ])('refuses the %s %j', async (key, value) => {
    const target = join(scratch, 'new');
    await expect(
      renderTemplate(context(), { template: 'python-service', target, values: { [key]: value } }),
    ).rejects.toMatchObject({ code: 'template-bad-value' });
    expect(await readdir(scratch)).toEqual([]);
  });

  it('copies what is no text byte for byte', async () => {
    const cx = await ownTemplate({
      'template.yaml': 'description: d\nquestions: []\n',
      'files/blob': '<%= it.nothing %>\u0000',
    });
    const target = join(scratch, 'out');
    await renderTemplate(cx, { template: 'own', target, values: {} });
    expect(await readFile(join(target, 'blob'), 'latin1')).toBe('<%= it.nothing %>\u0000');
  });

  it('leaves nothing behind when the template is wrong', async () => {
    const cx = await ownTemplate({
      'template.yaml': 'description: d\nquestions: []\n',
      'files/a': 'fine',
      'files/%nothing%': 'x',
    });
    const target = join(scratch, 'out');
    await expect(renderTemplate(cx, { template: 'own', target, values: {} })).rejects.toMatchObject({
      code: 'template-unknown-name',
    });
    expect(await readdir(scratch)).toEqual(['templates']);
  });
});
