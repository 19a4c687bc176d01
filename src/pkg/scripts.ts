/**
 * Maintainer scripts: byte-compiling, system users, systemd units.
 *
 * Secret: the shell text. Modelled on debhelper's autoscripts (postinst-py3compile, postinst-systemd-enable, ...), which are
 * what Debian's own packages run; ruled by Policy 6 and 9.3 and by deb-systemd-helper(1p).
 */
import type { MaintainerScript } from '../deb/archive.ts';

export interface ScriptNeeds {
  readonly packageName: string;
  /** Where Python modules are in the package: in dist-packages, or in a private folder. */
  readonly python: 'none' | 'public' | { readonly privateDir: string };
  /** System user (and group) that the package's services run as. */
  readonly user?: string | undefined;
  /** Names of units: 'hello.service'. */
  readonly units: readonly string[];
  /** Folders that services made, absolute; gone at purge. */
  readonly stateDirs: readonly string[];
  /** Names of files in sysusers.d and tmpfiles.d. */
  readonly sysusers?: readonly string[];
  readonly tmpfiles?: readonly string[];
  readonly alternatives?: readonly Alternative[];
  /** The package asks debconf questions. */
  readonly debconf?: boolean;
}

/** update-alternatives(1) */
export interface Alternative {
  readonly name: string;
  readonly link: string;
  readonly path: string;
  readonly priority: number;
}

const CONFIGURING =
  '[ "$1" = "configure" ] || [ "$1" = "abort-upgrade" ] || [ "$1" = "abort-deconfigure" ] || [ "$1" = "abort-remove" ]';

/** The scripts that a package needs, absent where there is nothing to do. */
export function maintainerScripts(needs: ScriptNeeds): Partial<Record<MaintainerScript, string>> {
  const scripts: Partial<Record<MaintainerScript, string>> = {};
  for (const [name, body] of Object.entries(generatedParts(needs))) {
    scripts[name as MaintainerScript] = `#!/bin/sh\nset -e\n\n${body}\nexit 0\n`;
  }
  return scripts;
}

/**
 * A packager's own script with the generated part in it: at its line `#DEBHELPER#`, else before a last `exit 0`, else at its end.
 */
export function mergeScript(own: string, generated: string): string {
  if (/^#DEBHELPER#$/m.test(own)) return own.replace(/^#DEBHELPER#$/m, () => generated.trimEnd());
  const end = /\n(exit 0\s*)$/.exec(own);
  return end ? `${own.slice(0, end.index + 1)}\n${generated}\n${end[1]}` : `${own.replace(/\n*$/, '\n')}\n${generated}`;
}

/** The bodies of the scripts, without interpreter line. */
export function generatedParts(needs: ScriptNeeds): Partial<Record<'postinst' | 'prerm' | 'postrm', string>> {
  const parts: Record<'postinst' | 'prerm' | 'postrm', string[]> = { postinst: [], prerm: [], postrm: [] };
  if (needs.debconf) addDebconf(parts);
  if (needs.sysusers?.length) addSysusers(parts, needs.sysusers);
  if (needs.user !== undefined) addUser(parts, needs.user);
  if (needs.tmpfiles?.length) addTmpfiles(parts, needs.tmpfiles);
  for (const alternative of needs.alternatives ?? []) addAlternative(parts, alternative);
  if (needs.python !== 'none') addPython(parts, needs.packageName, needs.python);
  if (needs.units.length > 0) addUnits(parts, needs.units);
  addPurge(parts, needs);
  return Object.fromEntries(
    Object.entries(parts)
      .filter(([, bodies]) => bodies.length > 0)
      .map(([name, bodies]) => [name, bodies.join('\n')]),
  );
}

type Parts = Record<'postinst' | 'prerm' | 'postrm', string[]>;

function addPython(parts: Parts, packageName: string, where: Exclude<ScriptNeeds['python'], 'none'>): void {
  const name = where === 'public' ? packageName : `${packageName} ${where.privateDir}`;
  const modules = where === 'public' ? '/usr/lib/python3/dist-packages/' : where.privateDir;
  parts.postinst.push(`if command -v py3compile >/dev/null 2>&1; then
	py3compile -p ${name}
fi
`);
  parts.prerm.push(`if command -v py3clean >/dev/null 2>&1; then
	py3clean -p ${name}
else
	dpkg -L ${packageName} | sed -En -e '/^(.*)\\/(.+)\\.py$/s,,rm "\\1/__pycache__/\\2".*,e'
	find ${modules} -type d -name __pycache__ -empty -print0 | xargs --null --no-run-if-empty rmdir
fi
`);
}

function addUser(parts: Parts, user: string): void {
  parts.postinst.push(`if [ "$1" = "configure" ] && ! getent passwd ${user} >/dev/null; then
	adduser --system --quiet --group --no-create-home --home /nonexistent ${user}
fi
`);
}

function addDebconf(parts: Parts): void {
  parts.postrm.push(`if [ "$1" = "purge" ] && [ -e /usr/share/debconf/confmodule ]; then
	. /usr/share/debconf/confmodule
	db_purge
fi
`);
}

function addSysusers(parts: Parts, files: readonly string[]): void {
  parts.postinst.push(`if ${CONFIGURING}; then
	if [ -x "$(command -v systemd-sysusers)" ]; then
		systemd-sysusers \${DPKG_ROOT:+--root="$DPKG_ROOT"} ${files.join(' ')}
	fi
fi
`);
}

function addTmpfiles(parts: Parts, files: readonly string[]): void {
  parts.postinst.push(`if ${CONFIGURING}; then
	if [ -x "$(command -v systemd-tmpfiles)" ]; then
		systemd-tmpfiles \${DPKG_ROOT:+--root="$DPKG_ROOT"} --create ${files.join(' ')} || true
	fi
fi
`);
}

function addAlternative(parts: Parts, { name, link, path, priority }: Alternative): void {
  parts.postinst.push(`if ${CONFIGURING}; then
	update-alternatives --install ${link} ${name} ${path} ${priority}
fi
`);
  parts.prerm.push(`if [ "$1" = "remove" ] || [ "$1" = "deconfigure" ]; then
	update-alternatives --remove ${name} ${path}
fi
`);
}

function addUnits(parts: Parts, units: readonly string[]): void {
  for (const unit of units) {
    parts.postinst.push(`if ${CONFIGURING}; then
	# an administrator's choice of enabled or disabled is kept; new installations are enabled
	deb-systemd-helper unmask ${unit} >/dev/null || true
	if deb-systemd-helper --quiet was-enabled ${unit}; then
		deb-systemd-helper enable ${unit} >/dev/null || true
	else
		deb-systemd-helper update-state ${unit} >/dev/null || true
	fi
fi
`);
  }
  const startable = units.filter((unit) => !/@\.\w+$/.test(unit)).join(' ');
  if (startable !== '') {
    parts.postinst.push(`if ${CONFIGURING}; then
	if [ -z "\${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
		systemctl --system daemon-reload >/dev/null || true
		if [ -n "$2" ]; then
			action=restart
		else
			action=start
		fi
		deb-systemd-invoke $action ${startable} >/dev/null || true
	fi
fi
`);
    parts.prerm.unshift(`if [ -z "\${DPKG_ROOT:-}" ] && [ "$1" = "remove" ] && [ -d /run/systemd/system ]; then
	deb-systemd-invoke stop ${startable} >/dev/null || true
fi
`);
  }
  parts.postrm.push(`if [ -z "\${DPKG_ROOT:-}" ] && [ "$1" = "remove" ] && [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = "purge" ] && command -v deb-systemd-helper >/dev/null 2>&1; then
	deb-systemd-helper purge ${units.join(' ')} >/dev/null || true
fi
`);
}

function addPurge(parts: Parts, needs: ScriptNeeds): void {
  const lines: string[] = [];
  for (const folder of needs.stateDirs) lines.push(`	rm -rf ${folder}`);
  if (needs.user !== undefined) {
    lines.push(`	if command -v deluser >/dev/null 2>&1; then
		deluser --system --quiet ${needs.user} >/dev/null 2>&1 || true
	fi`);
  }
  if (lines.length > 0) parts.postrm.push(`if [ "$1" = "purge" ]; then\n${lines.join('\n')}\nfi\n`);
}
