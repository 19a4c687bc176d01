import { describe, expect, it } from 'vitest';
import { parseLock } from '../../../../src/pkg/python/lock.ts';

const wanted = (name: string, text: string) =>
  parseLock(name, text)
    .filter((one) => one.wanted)
    .map((one) => `${one.name}==${one.version}`);

describe('parseLock', () => {
  it('uv.lock: from the project along plain dependencies', () => {
    const text = `version = 1
[[package]]
name = "shop"
version = "0.1.0"
source = { virtual = "." }
dependencies = [{ name = "flask" }]
[package.dev-dependencies]
dev = [{ name = "pytest" }]
[[package]]
name = "Flask"
version = "3.0.1"
source = { registry = "https://example.org/simple" }
dependencies = [{ name = "click", marker = "python_version > '3'" }]
[[package]]
name = "click"
version = "8.1.7"
source = { registry = "https://example.org/simple" }
[[package]]
name = "pytest"
version = "8.0"
source = { registry = "https://example.org/simple" }
`;
    expect(wanted('uv.lock', text)).toEqual(['flask==3.0.1', 'click==8.1.7']);
    expect(parseLock('uv.lock', text).map((one) => one.name)).toEqual(['flask', 'click', 'pytest']);
  });

  it('poetry.lock: groups, categories, optional packages, markers', () => {
    const text = `
[[package]]
name = "a"
version = "1"
optional = false
groups = ["main", "dev"]
markers = "python_version < '4'"
[[package]]
name = "b"
version = "1"
optional = false
groups = ["dev"]
[[package]]
name = "c"
version = "1"
optional = true
[[package]]
name = "d"
version = "1"
optional = false
category = "dev"
[[package]]
name = "e"
version = "1"
optional = false
`;
    expect(wanted('poetry.lock', text)).toEqual(['a==1', 'e==1']);
    expect(parseLock('poetry.lock', text)[0]?.marker).toBe("python_version < '4'");
  });

  it('pylock.toml, and versions that differ by platform are left to pip', () => {
    const text = `lock-version = "1.0"
[[packages]]
name = "one"
version = "1"
[[packages]]
name = "two"
version = "1"
[[packages]]
name = "two"
version = "2"
[[packages]]
name = "here"
version = "1"
directory = { path = "." }
`;
    expect(wanted('pylock.toml', text)).toEqual(['one==1']);
  });

  it('takes nothing for what is no lock', () => {
    expect(parseLock('uv.lock', 'package = 3\n')).toEqual([]);
    expect(parseLock('poetry.lock', '[[package]]\nname = 1\nversion = "x"\n')).toEqual([]);
    expect(() => parseLock('uv.lock', '[[')).toThrow();
  });
});
