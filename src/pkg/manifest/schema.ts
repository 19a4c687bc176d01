/**
 * The `package:` section of buildkit.yaml: a package said in full, for what has no build system of its own.
 *
 * Keys are named after debian/control fields and debhelper's files, in lower case.
 */
import { z } from 'zod';
import { isArch } from '../../deb/arch.ts';
import { isPackageName } from '../../deb/package.ts';
import { parseRelations } from '../../deb/relation.ts';
import { isVersion } from '../../deb/version.ts';

const relations = z
  .array(z.string().refine(isRelation, 'is no relation such as "libc6 (>= 2.36) | libc6.1"'))
  .default([])
  .describe('relations to other packages (Policy 7)');
const paths = (what: string) => z.array(z.string().min(1)).default([]).describe(what);
const target = z
  .string()
  .regex(/^\/(?!.*\/(\.{0,2})(\/|$)).+$/, "must be an absolute path, without '.', '..' or '//'")
  .describe('where it is installed');

const file = z.strictObject({
  source: z.string().min(1).optional().describe('file, folder or pattern (*, **, ?), relative to buildkit.yaml'),
  target,
  type: z.enum(['file', 'config', 'dir', 'symlink']).default('file').describe('config: kept on upgrade when changed'),
  mode: z
    .string()
    .regex(/^0?[0-7]{3,4}$/, "write octal digits in quotes, for example '0644'")
    .optional()
    .describe('default: 0755 for what is executable, else 0644'),
  owner: z
    .string()
    .regex(/^[a-z_][a-z0-9_-]*$/)
    .default('root')
    .describe('must exist on every Debian: root, www-data, ...'),
  group: z
    .string()
    .regex(/^[a-z_][a-z0-9_-]*$/)
    .default('root')
    .describe('as owner'),
  link: z.string().min(1).optional().describe('text of a symlink'),
});

const alternative = z.strictObject({
  name: z
    .string()
    .regex(/^[\w.+-]+$/)
    .describe('of the group, for example editor'),
  link: target,
  path: target,
  priority: z.int().default(50).describe('the highest wins'),
});

export const manifestSchema = z.strictObject({
  name: z.string().refine(isPackageName, 'is no name that Debian can have').describe('of the package'),
  version: z
    .string()
    .refine((text) => isVersion(`${text}-1`) && !text.includes('-'), 'is no upstream version')
    .optional()
    .describe('upstream version; default: from the tags of git'),
  architecture: z
    .string()
    .refine((text) => text === 'any' || isArch(text), 'is neither all, any nor an architecture')
    .default('all')
    .describe('any: that of the machine it is built for'),
  section: z
    .string()
    .regex(/^[a-z0-9/-]+$/)
    .default('misc')
    .describe('as in Policy 2.4'),
  priority: z
    .enum(['required', 'important', 'standard', 'optional', 'extra'])
    .default('optional')
    .describe('Policy 2.5'),
  maintainer: z.string().optional().describe('"Name <mail>"; default: pkg.maintainer'),
  homepage: z
    .url({ protocol: /^https?$/ })
    .optional()
    .describe('of the upstream project'),
  summary: z.string().min(3).max(80).describe('one line, without article and full stop'),
  description: z.string().default('').describe('paragraphs, separated by empty lines'),
  licence: z.string().optional().describe('short name as in DEP-5'),
  copyright: z.string().optional().describe('a debian/copyright file; default: made from licence and maintainer'),
  changelog: z
    .string()
    .optional()
    .describe('a debian/changelog; default: that of the folder, else from the tags of git'),
  'multi-arch': z
    .enum(['same', 'foreign', 'allowed', 'no'])
    .optional()
    .describe('Policy and the Multi-Arch specification'),
  essential: z.boolean().default(false).describe('almost never'),
  'pre-depends': relations,
  depends: relations,
  recommends: relations,
  suggests: relations,
  enhances: relations,
  breaks: relations,
  conflicts: relations,
  replaces: relations,
  provides: relations,
  files: z.array(file).default([]).describe('what is installed'),
  scripts: z
    .partialRecord(z.enum(['preinst', 'postinst', 'prerm', 'postrm']), z.string())
    .default({})
    .describe('own maintainer scripts; generated parts go to their line #DEBHELPER#'),
  triggers: z.array(z.string().min(1)).default([]).describe('lines of deb-triggers(5)'),
  debconf: z
    .strictObject({
      config: z.string().optional().describe('file of the script that asks'),
      templates: z.string().describe('file of the questions'),
    })
    .optional()
    .describe('questions at installation: debconf-devel(7)'),
  units: paths('systemd units: enabled and started at installation'),
  user: z
    .string()
    .regex(/^[a-z_][a-z0-9_-]{0,30}$/)
    .optional()
    .describe('system user for the services'),
  sysusers: paths('sysusers.d(5) files'),
  tmpfiles: paths('tmpfiles.d(5) files'),
  cron: paths('files for /etc/cron.d'),
  logrotate: z.string().optional().describe('file for /etc/logrotate.d'),
  man: paths('manual pages, named NAME.SECTION'),
  docs: paths('files for /usr/share/doc/PACKAGE'),
  alternatives: z.array(alternative).default([]).describe('update-alternatives(1)'),
});

export type Manifest = z.infer<typeof manifestSchema>;

function isRelation(text: string): boolean {
  try {
    return parseRelations(text).length > 0;
  } catch {
    return false;
  }
}
