/** Generated Debian versions for property and differential tests: close to each other, so that every rule of the order is met. */
import fc from 'fast-check';
import { isVersion } from '../../src/deb/version.ts';

const upstream = fc
  .tuple(
    fc.constantFrom('0', '1', '1', '2', '10', '01', '9007199254740993', '20240101'),
    fc.array(
      fc.constantFrom(
        '.',
        '.',
        '+',
        '~',
        '~~',
        '-',
        'a',
        'b',
        'Z',
        'rc',
        'dev',
        '0',
        '00',
        '1',
        '2',
        '9',
        '10',
        '010',
        '9007199254740992',
      ),
      {
        maxLength: 5,
      },
    ),
  )
  .map(([first, rest]) => first + rest.join(''));

const revision = fc.oneof(
  { weight: 2, arbitrary: fc.constantFrom('', '', '-0', '-1', '-1~deb12', '-1~deb12u1', '-1+b1') },
  {
    weight: 1,
    arbitrary: fc
      .array(fc.constantFrom('0', '1', '10', '.', '~', '+', 'a', 'ubuntu'), { minLength: 1, maxLength: 4 })
      .map((parts) => `-${parts.join('')}`),
  },
);

/** A valid version; colons in the upstream part only after an epoch, as dpkg has it. */
export const debVersion: fc.Arbitrary<string> = fc
  .tuple(fc.constantFrom('', '', '', '0:', '1:', '01:', '2:', '2147483647:'), upstream, revision, fc.boolean())
  .map(([epoch, body, end, colon]) => `${epoch}${epoch !== '' && colon ? body.replace('.', ':') : body}${end}`)
  .filter((version) => !version.endsWith('-') && !/-[^-]*:[^-]*$/.test(version));

/** Two versions of which the second is mostly the first with one small change, so that equal and nearly equal pairs are common. */
export const versionPair: fc.Arbitrary<[string, string]> = fc.oneof(
  { weight: 1, arbitrary: fc.tuple(debVersion, debVersion) },
  {
    weight: 3,
    arbitrary: fc
      .tuple(
        debVersion,
        fc.constantFrom('0', '00', '~', '+', '.', '-', 'a', 'Z', '1', '-0', '0:', ''),
        fc.nat({ max: 12 }),
        fc.nat({ max: 1 }),
      )
      .map(([version, inserted, at, removed]): [string, string] => [
        version,
        version.slice(0, at) + inserted + version.slice(at + removed),
      ])
      .filter(([, changed]) => isVersion(changed)),
  },
);
