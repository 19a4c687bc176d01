import { describe, expect, it } from 'vitest';
import {
  checkNetwork,
  DEFAULT_NETWORK,
  guestAddress,
  guestMac,
  overlaps,
  parsePrefix,
} from '../../../src/vm/net-spec.ts';

describe('addresses', () => {
  it('gives number 10 the address .10 and a MAC from it', () => {
    expect(guestAddress(DEFAULT_NETWORK, 10)).toBe('192.168.100.10');
    expect(guestMac(DEFAULT_NETWORK, 10)).toBe('52:54:00:a8:64:0a');
    expect(guestMac({ address: '10.1.2.254/24' }, 253)).toBe('52:54:00:01:02:fd');
  });

  it.each([0, 1, 254, 255, 10.5, -3, Number.NaN])('refuses number %s', (number) => {
    expect(() => guestAddress(DEFAULT_NETWORK, number)).toThrow(expect.objectContaining({ code: 'vm-number' }));
  });

  it('reads an address and its network', () => {
    expect(parsePrefix('192.168.100.254/24')).toEqual({
      address: '192.168.100.254',
      length: 24,
      network: '192.168.100.0',
    });
    expect(parsePrefix('10.20.33.1/20').network).toBe('10.20.32.0');
  });

  it.each(['192.168.100.254', '192.168.100/24', '256.1.1.1/24', '10.0.0.1/25', '10.0.0.1/7', 'fe80::1/64', ''])(
    'refuses %j',
    (text) => {
      expect(() => parsePrefix(text)).toThrow(expect.objectContaining({ code: 'net-address' }));
    },
  );

  it.each([
    ['192.168.100.254/24', '192.168.100.1/24', true],
    ['192.168.100.254/24', '192.168.101.1/24', false],
    ['10.0.0.254/24', '10.9.9.9/8', true],
    ['10.0.0.254/8', '10.9.9.9/24', true],
  ])('%s and %s share an address: %s', (a, b, expected) => {
    expect(overlaps(parsePrefix(a), parsePrefix(b))).toBe(expected);
    expect(overlaps(parsePrefix(b), parsePrefix(a))).toBe(expected);
  });
});

describe('checkNetwork', () => {
  it('finds nothing wrong with the default', () => {
    expect(checkNetwork(DEFAULT_NETWORK)).toEqual([]);
  });

  it('finds everything that is wrong at once, and what would mean something to ip, nft or dnsmasq', () => {
    const problems = checkNetwork({
      ...DEFAULT_NETWORK,
      name: '../x',
      bridge: 'br0"; drop',
      taps: ['way-too-long-name', 'a*', 'tap', 'tap'],
      uplink: 'all',
      address: '10.0.0.7/24',
      gateway: '10.0.0',
      ports: [0, 70000],
      guests: [{ number: 300, name: 'a,b\nserver=1.2.3.4' }],
    });
    expect(problems.map(({ code }) => code)).toEqual([
      'net-name',
      ...Array(4).fill('net-interface-name'),
      'net-interface-name',
      'net-address',
      'net-uplink',
      'net-port',
      'net-port',
      'net-guest',
      'vm-number',
    ]);
  });
});
