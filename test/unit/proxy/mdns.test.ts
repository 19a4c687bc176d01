import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  announce,
  discover,
  encodeAnswer,
  encodeQuery,
  parseQuestions,
  parseService,
} from '../../../src/proxy/mdns.ts';

const TYPE = '_apt_proxy._tcp';
const service = { name: 'buildkit on Host.x', type: TYPE, host: 'Host', port: 9999, addresses: ['192.0.2.7'] };

describe('looking for a service', () => {
  it('asks as RFC 1035 writes it, and reads what an announcer answers', () => {
    expect(parseQuestions(encodeQuery(TYPE))).toEqual([{ name: `${TYPE}.local`, type: 12 }]);
    expect(parseService(encodeAnswer(service, 120), TYPE)).toEqual({ address: '192.0.2.7', port: 9999 });
  });

  it('takes nothing that was taken back, is of another kind, has no address, or asks itself', () => {
    expect(parseService(encodeAnswer(service, 0), TYPE)).toBeUndefined();
    expect(parseService(encodeAnswer({ ...service, type: '_http._tcp' }, 120), TYPE)).toBeUndefined();
    expect(parseService(encodeAnswer({ ...service, addresses: [] }, 120), TYPE)).toBeUndefined();
    expect(parseService(encodeQuery(TYPE), TYPE)).toBeUndefined();
  });

  it('survives whatever comes from the network', () => {
    const good = encodeAnswer(service, 120);
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255))), fc.nat(good.length), (changes, length) => {
        const bytes = Buffer.from(good.subarray(0, length));
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        const found = parseService(bytes, TYPE);
        return found === undefined || (found.port > 0 && found.port < 65_536);
      }),
    );
  });

  it('finds one on this machine, and none after its end', async () => {
    const port = 20_000 + (process.pid % 20_000);
    {
      await using _announced = await announce({ ...service, addresses: ['127.0.0.1'] }, port);
      expect(await discover(TYPE, 20_000, port)).toEqual({ address: '127.0.0.1', port: 9999 });
    }
    expect(await discover(TYPE, 200, port)).toBeUndefined();
  }, 60_000);
});
