import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PublishedPackage } from '../../../src/repo/catalog.ts';
import { renderFeed } from '../../../src/repo/pages-feed.ts';
import { escapeText, html, pathLink, plainText, renderDescription, safeLink } from '../../../src/repo/pages-html.ts';
import { groupNames, namesInRelations, packagePage, pageFiles } from '../../../src/repo/pages-model.ts';
import {
  renderFrontPage,
  renderListPage,
  renderPackagePage,
  renderSearchIndex,
  renderSuitePage,
  sourcesFileName,
} from '../../../src/repo/pages-views.ts';

const REPOSITORY = {
  label: 'Example',
  origin: 'Example Software',
  description: 'Packages of Example Software',
  url: 'https://apt.example.net/debian/',
  fingerprints: ['0123456789abcdef0123456789abcdef01234567'],
};
const SUITE = { name: 'bookworm', alias: 'stable', components: ['main', 'extra'], architectures: ['amd64', 'arm64'] };
const STATE = {
  packages: 2,
  date: '2026-11-21T08:12:05.000Z',
  validUntil: '2026-12-05T08:12:05.000Z',
  sources: 'Types: deb\nURIs: https://apt.example.net/debian/\n',
};
const LISTED = [
  { name: 'g++', version: '4:12.2.0-3', synopsis: 'GNU C++ compiler' },
  { name: 'hello', version: '2.12-1', synopsis: 'says <hello> & "bye"' },
];
const ARRIVALS = [
  {
    name: 'hello',
    version: '2.12-1',
    architecture: 'amd64',
    synopsis: 'says <hello> & "bye"',
    addedAt: '2026-11-20T10:00:00.000Z',
  },
];

const golden = (name: string) => `../../golden/repo-pages/${name}`;

function published(version: string, architecture: string, fields: string, name = 'hello'): PublishedPackage {
  return {
    component: 'main',
    addedAt: '2026-11-20T10:00:00.000Z',
    package: {
      id: 1,
      kind: 'deb',
      name,
      version,
      architecture,
      source: name,
      filename: `pool/main/h/hello/${name}_${version}_${architecture}.deb`,
      size: 56_132,
      md5: '1'.repeat(32),
      sha1: '2'.repeat(40),
      sha256: '3'.repeat(64),
      sha512: '4'.repeat(128),
      control: `Package: ${name}\nVersion: ${version}\nArchitecture: ${architecture}\n${fields}`,
    },
  };
}

const FIELDS = `Maintainer: Example Team <team@example.net>
Installed-Size: 280
Depends: libc6 (>= 2.36), libgreet1 (= 2.12-1) | libgreet0, debconf
Section: utils
Homepage: https://www.example.net/hello?a=1&b=2
Description: friendly greeting
 The first paragraph
 goes over two lines.
 .
 What it can do:
  * greet
  * greet many,
    one after the other
 .
   hello --verbatim
`;

describe('escaping', () => {
  it('lets nothing of a text be markup', () => {
    expect(escapeText(`<a href='x' title="y">&`)).toBe('&lt;a href=&#39;x&#39; title=&quot;y&quot;&gt;&amp;');
    expect(
      html`<p title="${'"><script>'}">${'<b>'}${html`<i>${1}</i>`}${undefined}${[html`a`, html`b`]}</p>`.html,
    ).toBe('<p title="&quot;&gt;&lt;script&gt;">&lt;b&gt;<i>1</i>ab</p>');
  });

  it('shows controls, turned writing and halves of characters as what they are', () => {
    expect(plainText('a\u0000\u001b[31mb\u009b\u202egpj.exe\u2066\ud800\u{1f600}\n\t')).toBe(
      'a\ufffd\ufffd[31mb\ufffd\ufffdgpj.exe\ufffd\ufffd\u{1f600}\n\t',
    );
  });

  it('never lets a text open a tag or end an attribute', () => {
    const text = fc.array(fc.integer({ min: 0, max: 0xffff })).map((units) => String.fromCharCode(...units));
    fc.assert(fc.property(text, (any) => !/[<>"'\u0000-\u0008\u007f]/.test(escapeText(any))));
  });

  it.each([
    ['https://www.example.net/a?b=1', 'https://www.example.net/a?b=1'],
    [' HTTP://example.net ', 'http://example.net/'],
    ['javascript:alert(1)', undefined],
    ['java\nscript:alert(1)', undefined],
    ['data:text/html,x', undefined],
    ['//example.net/', undefined],
    ['https://user:word@example.net/', undefined],
    ['https://', undefined],
    ['', undefined],
  ])('links %j as %j', (text, link) => expect(safeLink(text)).toBe(link));

  it('makes addresses of paths', () => {
    expect(pathLink("pool/g++_1%:2'#?.deb")).toBe('pool/g%2B%2B_1%25%3A2%27%23%3F.deb');
  });

  it.each([
    ['Example', 'bookworm', '/etc/apt/sources.list.d/example-bookworm.sources'],
    ['../É "x"; rm', 'a+b', '/etc/apt/sources.list.d/x-rm-a-b.sources'],
  ])('names the entry of %j %j', (label, suite, file) => expect(sourcesFileName(label, suite)).toBe(file));
});

describe('a description', () => {
  it('has paragraphs, lists and verbatim lines', () => {
    const page = packagePage([published('1', 'all', FIELDS)], () => undefined);
    expect(renderDescription(page.description).map((block) => block.html)).toEqual([
      '<p>The first paragraph goes over two lines.</p>\n',
      '<p>What it can do:</p>\n',
      '<ul><li>greet</li><li>greet many, one after the other</li></ul>\n',
      '<pre>  hello --verbatim</pre>\n',
    ]);
  });
});

describe('a package', () => {
  const versions = [
    published('2.9-1', 'amd64', 'Description: old\n'),
    published('2.12-1', 'arm64', FIELDS),
    published('2.12-1', 'amd64', FIELDS),
  ];
  const page = packagePage(versions, () => pageFiles(Buffer.from('usr/bin/hello\nusr/share/doc/hello/<copyright>')));

  it('is what its newest version says', () => {
    expect(page.versions.map((one) => `${one.package.version} ${one.package.architecture}`)).toEqual([
      '2.12-1 amd64',
      '2.12-1 arm64',
      '2.9-1 amd64',
    ]);
    expect(page).toMatchObject({ version: '2.12-1', synopsis: 'friendly greeting' });
    expect(namesInRelations(page)).toEqual(['libc6', 'libgreet1', 'libgreet0', 'debconf']);
  });

  it('has a page', async () => {
    const text = renderPackagePage(REPOSITORY, SUITE, page, (name) => name === 'libgreet1');
    await expect(text).toMatchFileSnapshot(golden('package.html'));
  });

  it('does no harm', () => {
    const evil = `Maintainer: "><img src=x onerror=alert(1)>
Section: </title><script>alert(1)</script>
Homepage: javascript:alert(document.domain)
Depends: not a <relation>, (((
Recommends: ${Array.from({ length: 4000 }, (_, index) => `package${index}`).join(', ')}
Description: </script><script>alert(2)</script>\u202e\u001b[2J
 <iframe src="//evil.example/">
  <script>alert(3)</script>
`;
    const text = renderPackagePage(
      REPOSITORY,
      SUITE,
      packagePage([published('1', 'all', evil)], () => undefined),
      () => true,
    );
    expect(text.match(/<script\b[^>]*>/g)).toEqual([
      expect.stringMatching(/^<script src="\.\.\/\.\.\/\.\.\/pages\.js\?/),
    ]);
    expect(text).not.toMatch(/<(?:img|iframe)|\son\w+="|href="(?!\.\.\/|https:\/\/|data:image|[a-z0-9%.+-]+\.html)/i);
    expect(text).toContain('<dd>javascript:alert(document.domain)</dd>');
    expect(text).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u202e]/);
    expect(text.length).toBeLessThan(15_000);
  });
});

describe('lists', () => {
  it('are cut as an index is', () => {
    expect(groupNames(['a', 'b'], 2)).toEqual([{ prefix: '', from: 0, to: 2 }]);
    expect(groupNames([], 2)).toEqual([{ prefix: '', from: 0, to: 0 }]);
    expect(groupNames(['a', 'lib', 'liba', 'libb', 'libb1', 'z'], 2)).toEqual([
      { prefix: 'a', from: 0, to: 1 },
      { prefix: 'lib', from: 1, to: 2 },
      { prefix: 'liba', from: 2, to: 3 },
      { prefix: 'libb', from: 3, to: 5 },
      { prefix: 'z', from: 5, to: 6 },
    ]);
  });

  it('hold each name once, in few enough', () => {
    const word = fc.string({ unit: fc.constantFrom('a', 'b', '+', '1'), minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(fc.uniqueArray(word), fc.integer({ min: 1, max: 5 }), (words, limit) => {
        const names = words.sort();
        const groups = groupNames(names, limit);
        expect(groups.flatMap(({ from, to }) => names.slice(from, to))).toEqual(names);
        for (const { prefix, from, to } of groups) {
          expect(to - from).toBeLessThanOrEqual(limit);
          expect(names.slice(from, to).every((name) => name.startsWith(prefix))).toBe(true);
        }
        expect(new Set(groups.map((group) => group.prefix)).size).toBe(groups.length);
      }),
    );
  });

  it('have a page for each part', async () => {
    await expect(renderListPage(REPOSITORY, SUITE, 'g', LISTED)).toMatchFileSnapshot(golden('list.html'));
  });

  it('can be searched line by line', () => {
    const text = renderSearchIndex([...LISTED, { name: 'x', version: '1', synopsis: 'tab\tand\nline\u0000' }]);
    expect(text).toBe(
      'g++\t4:12.2.0-3\tGNU C++ compiler\nhello\t2.12-1\tsays <hello> & "bye"\nx\t1\ttab and line\ufffd\n',
    );
  });
});

describe('a suite', () => {
  it('has a page with every package', async () => {
    const text = renderSuitePage(REPOSITORY, SUITE, STATE, { packages: LISTED }, ARRIVALS);
    await expect(text).toMatchFileSnapshot(golden('suite.html'));
  });

  it('has a page with parts when it is long, and says how to be found where it has no address', async () => {
    const parts = [
      { prefix: 'a', count: 400 },
      { prefix: 'g+', count: 200 },
    ];
    const text = renderSuitePage({ ...REPOSITORY, url: undefined }, SUITE, { ...STATE, packages: 600 }, { parts }, []);
    await expect(text).toMatchFileSnapshot(golden('suite-long.html'));
  });

  it('has a feed', async () => {
    await expect(renderFeed(REPOSITORY, SUITE, ARRIVALS, STATE.date)).toMatchFileSnapshot(golden('feed.atom'));
  });

  it('quotes what goes to a shell', () => {
    const url = "https://apt.example.net/$(id)'/";
    const text = renderSuitePage({ ...REPOSITORY, url }, SUITE, STATE, { packages: [] }, []);
    expect(text).toContain('&#39;https://apt.example.net/$(id)&#39;\\&#39;&#39;/bookworm.sources&#39;');
  });

  it('stands on the front page', async () => {
    const suites = [{ ...SUITE, packages: 1, date: STATE.date }];
    await expect(renderFrontPage(REPOSITORY, suites)).toMatchFileSnapshot(golden('front.html'));
    expect(renderFrontPage(REPOSITORY, [])).toContain('Nothing is published yet.');
  });
});
