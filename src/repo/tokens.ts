/**
 * Who may write over HTTP.
 *
 * Secret: how tokens are kept. They have 256 random bits, so that a plain digest is enough: nobody guesses one, and who reads the
 * catalog learns none.
 */
import { createHash, randomBytes } from 'node:crypto';
import { UserError } from '../core/errors.ts';
import type { TokenFacts, TokenRole } from './catalog.ts';
import { findSuite, type RepoHandle } from './handle.ts';

export interface TokenRequest {
  readonly name: string;
  /** Default: every suite. */
  readonly suites?: readonly string[] | undefined;
  readonly role: TokenRole;
}

const hashOf = (token: string) => createHash('sha256').update(token).digest('hex');

/** @throws UserError `token-exists`, `no-such-suite` */
export function createToken(repo: RepoHandle, request: TokenRequest): string {
  const suites = (request.suites ?? []).map((name) => findSuite(repo, name).name);
  if (repo.catalog.tokens().some((token) => token.name === request.name)) {
    throw new UserError('token-exists', `there is a token '${request.name}' already`, {
      hint: 'choose another name, or revoke that one first',
    });
  }
  const token = `bk_${randomBytes(32).toString('base64url')}`;
  const created = repo.context.now().toISOString();
  repo.catalog.transaction(() =>
    repo.catalog.insertToken({ name: request.name, suites, role: request.role, created }, hashOf(token)),
  );
  return token;
}

/** @throws UserError `no-such-token` */
export function revokeToken(repo: RepoHandle, name: string): void {
  if (repo.catalog.transaction(() => repo.catalog.deleteToken(name))) return;
  throw new UserError('no-such-token', `there is no token '${name}'`, { hint: 'see: buildkit repo token list' });
}

/** @throws UserError `not-allowed`, without a word on what was wrong */
export function checkToken(repo: RepoHandle, token: string | undefined, suite: string, role: TokenRole): TokenFacts {
  const found = token === undefined ? undefined : repo.catalog.findToken(hashOf(token));
  const isMeant = found !== undefined && (found.suites.length === 0 || found.suites.includes(suite));
  if (found && isMeant && (found.role === 'publish' || role === 'upload')) return found;
  throw new UserError('not-allowed', 'no right to do this');
}
