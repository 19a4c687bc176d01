/** Who maintains what is built (Policy 5.6.2): the first that is said of flag or file, DEBFULLNAME and DEBEMAIL, git, the project. */
import type { Context } from '../core/context.ts';
import { ToolError, UserError } from '../core/errors.ts';
import { run } from '../core/run.ts';

const FORM = /^[^<>\n]+ <[^<>\s@]+@[^<>\s@]+>$/;

/**
 * 'Name <mail>'.
 * @param authors of the projects that are built, as a last resort
 * @throws UserError `maintainer` when the one given has another form
 */
export async function chooseMaintainer(
  context: Context,
  given: string | undefined,
  authors: readonly (string | undefined)[],
): Promise<string> {
  if (given !== undefined) {
    if (FORM.test(given)) return given;
    throw new UserError('maintainer', `'${given}' is no maintainer`, {
      hint: 'write it as: Ada Lovelace <ada@example.org>',
    });
  }
  const { DEBFULLNAME, DEBEMAIL, NAME, EMAIL } = context.env;
  const [name, mail] = [DEBFULLNAME || NAME, DEBEMAIL || EMAIL];
  const fromEnvironment = `${name} <${mail}>`;
  if (name && mail && FORM.test(fromEnvironment)) return fromEnvironment;
  const fromGit = await gitIdentity(context);
  return (
    [fromGit, ...authors].find((one) => one !== undefined && FORM.test(one)) ??
    'buildkit user <root@localhost.localdomain>'
  );
}

async function gitIdentity(context: Context): Promise<string | undefined> {
  try {
    const { stdout } = await run(context, 'git', ['config', '--get-regexp', '^user\\.(name|email)$'], {
      okExitCodes: [1],
    });
    const value = (key: string) => new RegExp(`^user\\.${key} (.*)$`, 'm').exec(stdout)?.[1];
    return `${value('name')} <${value('email')}>`.includes('undefined')
      ? undefined
      : `${value('name')} <${value('email')}>`;
  } catch (error) {
    if (error instanceof ToolError) return undefined; // no git
    throw error;
  }
}
