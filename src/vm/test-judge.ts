/**
 * What the output of apt, dpkg and a web server means for a test. Pure.
 *
 * Secret: which of apt's lines tell of a fault while its exit code says 0 (apt-get(8)), and how a check runs in a guest that has
 * only what a minimal Debian has: bash's /dev/tcp, openssl s_client.
 */

/** Lines by which apt warns or complains. `Ign:` of the repositories under test counts: by-hash files that are not there. */
export function aptComplaints(output: string, ours: readonly string[] = []): string[] {
  return output
    .split('\n')
    .filter(
      (line) => /^(?:W|E|Err):/.test(line) || (line.startsWith('Ign:') && ours.some((uri) => line.includes(uri))),
    );
}

/** `name\tversion` lines of dpkg-query for packages that are configured. */
export function parseInstalled(output: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const line of output.split('\n')) {
    const [status, name, version] = line.split('\t');
    if (status === 'installed' && name !== undefined && version !== undefined) found.set(name, version);
  }
  return found;
}

/** Prints what `parseInstalled` reads. */
export const DPKG_QUERY: readonly string[] = [
  'dpkg-query',
  '--show',
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own fields
  '--showformat=${db:Status-Status}\\t${Package}\\t${Version}\\n',
];

/** What an installation brought or changed, by name. */
export function newPackages(
  before: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string>,
): { name: string; version: string }[] {
  return [...after]
    .filter(([name, version]) => before.get(name) !== version)
    .map(([name, version]) => ({ name, version }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** `hello` of `hello=2.12-1`, `hello/bookworm`, `hello:amd64`. */
export function packageNameOf(request: string): string {
  return request.split(/[=/:]/, 1)[0] ?? request;
}

/**
 * The argv that fetches `url` inside the guest and prints the whole answer, head and body. HTTP/1.0, so that no server sends
 * chunks; tried until a server listens, at most `limitSeconds`.
 */
export function httpFetch(url: string, limitSeconds: number): string[] {
  const { protocol, hostname, port, pathname, search, host } = new URL(url);
  const secure = protocol === 'https:';
  const name = hostname.replace(/^\[|\]$/g, '');
  return [
    'bash',
    '-c',
    FETCH_SCRIPT,
    'fetch',
    ...[name, port || (secure ? '443' : '80'), pathname + search, host],
  ].concat(secure ? 'tls' : 'plain', String(limitSeconds));
}

const FETCH_SCRIPT = `
host=$1 port=$2 path=$3 name=$4 kind=$5 end=$((SECONDS + $6))
request() { printf 'GET %s HTTP/1.0\\r\\nHost: %s\\r\\nUser-Agent: buildkit\\r\\nConnection: close\\r\\n\\r\\n' "$path" "$name"; }
fetch() {
  if [ "$kind" = tls ]; then
    { request; sleep 20; } | timeout 20 openssl s_client -quiet -verify_return_error -servername "$host" -connect "$host:$port"
  else
    exec 3<>"/dev/tcp/$host/$port" || return
    request >&3
    timeout 20 cat <&3
  fi
}
while :; do
  answer=$(fetch 2>/tmp/.buildkit-fetch | tr -d '\\000')
  [ -n "$answer" ] && { printf '%s\\n' "$answer"; exit 0; }
  [ "$SECONDS" -lt "$end" ] || { cat /tmp/.buildkit-fetch >&2; exit 1; }
  sleep 0.3
done
`;

export interface HttpAnswer {
  readonly status: number;
  readonly body: string;
}

/** Splits what `httpFetch` printed; undefined when it is no HTTP. */
export function parseHttpAnswer(text: string): HttpAnswer | undefined {
  const status = /^HTTP\/\d(?:\.\d)? (\d{3})/.exec(text)?.[1];
  if (status === undefined) return undefined;
  const end = /\r?\n\r?\n/.exec(text);
  return { status: Number(status), body: end ? text.slice(end.index + end[0].length) : '' };
}

/** Why the answer is not what was expected; undefined when it is. */
export function judgeHttp(
  answer: HttpAnswer | undefined,
  wanted: { readonly status?: number | undefined; readonly contains?: string | undefined },
): string | undefined {
  if (!answer) return 'the answer is no HTTP';
  const status = wanted.status ?? 200;
  if (answer.status !== status) return `the answer is ${answer.status}, expected ${status}`;
  if (wanted.contains !== undefined && !answer.body.includes(wanted.contains)) {
    return `the answer does not contain '${wanted.contains}', it begins: ${answer.body.slice(0, 200)}`;
  }
  return undefined;
}
