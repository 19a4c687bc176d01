import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import {
  checkDigestFormat,
  compareDigests,
  dearmor,
  digester,
  digestInSums,
  signaturePlaces,
} from '../../../src/vm/fetch-verify.ts';

const SHA512 = createHash('sha512').update('abc').digest('hex');

describe('digests', () => {
  it('must have the length of their kind', () => {
    checkDigestFormat({ md5: 'D41D8CD98F00B204E9800998ECF8427E', sha512: SHA512 });
    expect(() => checkDigestFormat({ sha256: SHA512 })).toThrow(expect.objectContaining({ code: 'digest-format' }));
    expect(() => checkDigestFormat({ md5: 'x'.repeat(32) })).toThrow(
      expect.objectContaining({ code: 'digest-format' }),
    );
  });

  it('are taken in one pass and compared whatever the case', () => {
    const hashes = digester({ md5: '' }, ['sha256']);
    hashes.update(Buffer.from('a'));
    hashes.update(Buffer.from('bc'));
    const found = hashes.results();
    expect(found).toEqual({
      md5: '900150983cd24fb0d6963f7d28e17f72',
      sha256: 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    });
    compareDigests({ md5: '900150983CD24FB0D6963F7D28E17F72' }, found, 'the image', 'x');
    expect(() => compareDigests({ sha256: '0'.repeat(64) }, found, 'the image', 'x')).toThrow(
      expect.objectContaining({ code: 'digest-mismatch', exitCode: 4 }),
    );
  });

  it('are found in lists as sha512sum writes them', () => {
    const sums = `${SHA512}  other.qcow2\n${SHA512.replace(/^../, 'ff')} *image.qcow2\r\n${SHA512}  ./dotted.raw\n`;
    expect(digestInSums(sums, 'image.qcow2')).toBe(SHA512.replace(/^../, 'ff'));
    expect(digestInSums(sums, 'dotted.raw')).toBe(SHA512);
    expect(digestInSums(sums, 'age.qcow2')).toBeUndefined();
  });
});

describe('signatures', () => {
  it('are looked for beside the image first', () => {
    const places = signaturePlaces('a.qcow2');
    expect(places[0]).toEqual({ sums: undefined, signature: 'a.qcow2.sig' });
    expect(places).toContainEqual({ sums: 'SHA512SUMS', signature: 'SHA512SUMS.sign' });
    expect(places).toContainEqual({ sums: 'SHA256SUMS', signature: 'SHA256SUMS.gpg' });
  });

  it('take an armored keyring of several blocks', () => {
    const block = (body: string, head = '') =>
      `-----BEGIN PGP PUBLIC KEY BLOCK-----\n${head}\n${Buffer.from(body).toString('base64')}\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n`;
    const armored = Buffer.from(`Comment outside\n${block('one', 'Version: x\n')}${block('two')}`);
    expect(Buffer.from(dearmor(armored)).toString()).toBe('onetwo');
    expect(dearmor(Buffer.from([0x99, 1]))).toEqual(Buffer.from([0x99, 1]));
  });
});
