/** The pages of a repository in a real browser: phone and desktop, light and dark, with JavaScript and without. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { writeDeb } from '../../src/deb/archive.ts';
import { paragraph } from '../../src/deb/control.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { serveRepo } from '../../src/repo/serve.ts';
import { type Browser, startBrowser, type View } from '../support/browser.ts';
import { makePackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

const CHANGELOG = `hello (1.0) unstable; urgency=low

  * <b>First</b> release. ${'It has a long line. '.repeat(20)}

 -- T <t@example.org>  Mon, 01 Jan 2024 00:00:00 +0000
`;

let world: World;
let repo: Repo;
let server: Awaited<ReturnType<typeof serveRepo>>;
let browser: Browser;

async function makeSource(folder: string): Promise<void> {
  const debian = join(folder, 'hello-1.0/debian');
  await mkdir(join(debian, 'source'), { recursive: true });
  await writeFile(join(debian, 'source/format'), '3.0 (native)\n');
  await writeFile(join(debian, 'changelog'), CHANGELOG);
  await writeFile(
    join(debian, 'control'),
    'Source: hello\nMaintainer: T <t@example.org>\nStandards-Version: 4.6.2\n\nPackage: hello\nArchitecture: all\nDescription: x\n',
  );
  await run({}, 'dpkg-source', ['--build', 'hello-1.0'], { cwd: folder });
}

async function makeHello(folder: string): Promise<void> {
  const fields = {
    Package: 'hello',
    Version: '1.0',
    Architecture: 'all',
    Maintainer: `T <${'long'.repeat(40)}@example.org>`,
    Depends: `package-1 (>= 1.0), ${'n'.repeat(80)} | other`,
    Description: `says hello ${'verylongword'.repeat(12)}\n Text.\n .\n   ${'verbatim'.repeat(40)}`,
  };
  const path = '/usr/share/doc/hello/changelog.gz';
  await writeFile(join(folder, 'changelog'), CHANGELOG);
  await run({}, 'gzip', ['-9n', join(folder, 'changelog')]);
  const entries = [{ path, type: 'file' as const, mode: 0o644, source: { file: join(folder, 'changelog.gz') } }];
  await writeDeb(
    world.context,
    join(folder, 'hello_1.0_all.deb'),
    { control: paragraph(Object.entries(fields)), entries },
    { compression: 'xz', sourceDateEpoch: 1_700_000_000 },
  );
}

beforeAll(async () => {
  world = await createWorld();
  const request = { name: 'Example', email: 'a@example.org', algorithm: 'ed25519' as const, expiresSeconds: undefined };
  await new KeyStore(world.context).generate(request);
  repo = await Repo.init(world.context, join(world.path, 'repo'), {
    suites: ['bookworm', 'trixie'].map((name) => ({ name, components: ['main'], architectures: ['amd64'] })),
    origin: 'Example',
    label: 'Example',
  });
  const folder = join(world.path, 'in');
  for (let n = 1; n <= 12; n += 1) {
    const fields = { Description: `${n % 4 === 0 ? 'Fourth' : 'plain'} thing number ${n}` };
    await makePackage(world.context, folder, { name: `package-${n}`, fields });
  }
  await makeHello(folder);
  await makeSource(folder);
  await repo.add('bookworm', [folder]);
  const many = join(world.path, 'many'); // so many that the list is cut, and the search has a file of its own
  for (let n = 0; n < 510; n += 1) await makePackage(world.context, many, { name: `p${'abc'[n % 3]}-${n}` });
  await repo.add('trixie', [many]);
  await repo.publish();
  server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
  browser = await startBrowser();
}, 300_000);

afterAll(async () => {
  await browser[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
  repo[Symbol.dispose]();
  await world[Symbol.asyncDispose]();
}, 120_000);

const open = (path: string, view: View) => browser.open(`${server.url}${path}`, view);
const shown = () =>
  browser.value<string[]>(
    "[...document.querySelectorAll('#packages li')].filter((row) => row.offsetParent !== null).map((row) => row.querySelector('a').textContent)",
  );

/** What the eye has of it: how far text and ground are apart, by WCAG 2. */
const CONTRAST = `(() => {
  const light = (text) => {
    const parts = text.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255);
    const [r, g, b] = parts.map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (colour !== 'rgba(0, 0, 0, 0)') return light(colour);
    }
    return 1;
  };
  const texts = [...document.querySelectorAll('h1, h2, p, a, dt, dd, li, pre, code, th, td, small, summary, span, button')];
  const worst = texts.filter((one) => one.offsetParent !== null && one.textContent.trim() !== '').map((one) => {
    const [a, b] = [light(getComputedStyle(one).color), ground(one)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
  return Math.min(...worst);
})()`;

const PAGES = [
  '/index.html',
  '/pages/bookworm/index.html',
  '/pages/bookworm/packages/hello.html',
  '/pages/bookworm/sources.html',
  '/pages/bookworm/sources/hello.html',
  '/pages/trixie/index.html',
];

describe('pages in a browser', () => {
  it.each(PAGES)('%s fits a phone and a desk, and is readable by day and by night', async (path) => {
    const grounds = new Set<string>();
    for (const width of [360, 1280]) {
      for (const scheme of ['light', 'dark'] as const) {
        await open(path, { width, scheme });
        const over = await browser.value<number>('document.documentElement.scrollWidth - innerWidth');
        expect(over, `${width} ${scheme}`).toBeLessThanOrEqual(0);
        expect(await browser.value<number>(CONTRAST), `${width} ${scheme}`).toBeGreaterThanOrEqual(4.5);
        grounds.add(await browser.value<string>('getComputedStyle(document.body).backgroundColor'));
      }
    }
    expect(grounds.size).toBe(2);
  });

  it('are searched as somebody types', async () => {
    await open('/pages/bookworm/index.html', { width: 1280 });
    expect(await shown()).toHaveLength(13);
    const type = (text: string) =>
      browser.value(`(() => {
        const input = document.querySelector('.search input');
        input.value = ${JSON.stringify(text)};
        input.dispatchEvent(new Event('input'));
      })()`);
    await type('FOURTH thing');
    expect(await shown()).toEqual(['package-12', 'package-4', 'package-8']);
    expect(await browser.value("document.querySelector('#count').textContent")).toBe('3 found');
    expect(await browser.value('location.search')).toBe('?q=FOURTH+thing');
    await type('<script>');
    expect(await shown()).toEqual([]);
    await type('');
    expect(await shown()).toHaveLength(13);
    await open('/pages/bookworm/index.html?q=says', { width: 360 });
    expect(await shown()).toEqual(['hello']);
  });

  it('are searched in a long suite too', async () => {
    await open('/pages/trixie/index.html?q=pb-4', { width: 1280 });
    await expect.poll(shown, { timeout: 60_000 }).toContain('pb-4');
    expect((await shown()).every((name) => name.startsWith('pb-4'))).toBe(true);
    await browser.value("document.querySelector('#packages a').click()");
    await expect.poll(() => browser.value('document.title'), { timeout: 60_000 }).toMatch(/^pb-4.* · trixie/);
  });

  it('have buttons that copy, and the address of the page in what they copy', async () => {
    await open('/pages/bookworm/index.html', { width: 1280 });
    const texts = await browser.value<string[]>(
      "[...document.querySelectorAll('.copy pre')].map((one) => one.textContent)",
    );
    expect(texts[0]).toContain(`URIs: ${server.url}/\n`);
    const buttons = "[...document.querySelectorAll('.copy button')]";
    expect(await browser.value(`${buttons}.length`)).toBe(texts.length);
    await browser.value(`${buttons}[0].click()`);
    await expect.poll(() => browser.value(`${buttons}[0].textContent`), { timeout: 60_000 }).not.toBe('Copy');
  });

  it('are whole without JavaScript', async () => {
    await open('/pages/bookworm/index.html', { width: 360, javascript: false });
    expect(await shown()).toHaveLength(13);
    expect(await browser.value("document.querySelector('.search').offsetParent")).toBe(null); // a field that does nothing
    expect(await browser.value("document.querySelectorAll('button').length")).toBe(0);
    await open('/pages/trixie/index.html', { width: 360, javascript: false });
    const parts = await browser.value<string[]>("[...document.querySelectorAll('.names a')].map((one) => one.href)");
    expect(parts).toHaveLength(3);
    await browser.open(parts[0]!, { width: 360, javascript: false });
    expect(await shown()).toHaveLength(170);
  });

  it('show the changelog, and lead from package to source and back', async () => {
    await open('/pages/bookworm/packages/hello.html', { width: 360 });
    expect(await browser.value("document.querySelector('#changelog pre').textContent")).toBe(CHANGELOG.trimEnd());
    expect(await browser.value("document.querySelectorAll('b, script:not([src])').length")).toBe(0);
    const source = await browser.value<string>("document.querySelector('aside a[href*=sources]').href");
    await browser.open(source, { width: 360 });
    const links = await browser.value<string[]>(
      "[...document.querySelectorAll('main a')].map((one) => one.getAttribute('href'))",
    );
    expect(links).toEqual(
      expect.arrayContaining([
        '../packages/hello.html',
        '../../../pool/main/h/hello/hello_1.0.dsc',
        '../../../pool/main/h/hello/hello_1.0.tar.xz',
      ]),
    );
  });
});
