/** The schema of `buildkit.yaml`: every key, its meaning and its default. Sections are owned by the folder of their name. */
import { z } from 'zod';
import { manifestSchema } from '../pkg/manifest/schema.ts';

const duration = z
  .string()
  .regex(/^\d+[hdwmy]$/, "write a number and h, d, w, m (months) or y, for example '14d'")
  .describe("a length of time: number and h, d, w, m (months) or y, for example '14d'");

const httpCheck = z.strictObject({
  http: z.url({ protocol: /^https?$/ }).describe('fetched inside the test machine'),
  status: z.int().min(100).max(599).default(200).describe('the HTTP status that is right'),
  contains: z.string().optional().describe('text that the answer must contain'),
});

const commandCheck = z.strictObject({
  command: z.string().min(1).describe('run by sh inside the test machine; exit code 0 is right'),
});

const serviceCheck = z.strictObject({
  service: z.string().min(1).describe('a systemd unit that must be active inside the test machine'),
});

const pkg = z.strictObject({
  'packaging-version': z
    .string()
    .regex(/^[0-9][A-Za-z0-9.+]*$/, 'starts with a digit; letters, digits, "." and "+" follow')
    .default('1')
    .describe('the Debian revision before the suite mark: 3.1.3-1~deb12 has 1'),
  compression: z.enum(['xz', 'zstd', 'gzip', 'none']).default('xz').describe('of the members of the .deb files'),
  maintainer: z
    .string()
    .optional()
    .describe('"Name <mail>"; default: from pyproject.toml, DEBFULLNAME and DEBEMAIL, or git'),
  out: z.string().default('dist').describe('folder for the .deb files'),
  deps: z
    .enum(['auto', 'packages', 'bundle', 'distro'])
    .default('packages')
    .describe('dependencies: each a package; all bundled; all from the suite; or auto, the best of them for each'),
  present: z.array(z.string()).default([]).describe('distributions that are left to the suite'),
  build: z.array(z.string()).default([]).describe('distributions that get a package, whatever the suite has'),
  vendor: z.array(z.string()).default([]).describe('distributions that applications carry inside'),
  drop: z.array(z.string()).default([]).describe('distributions that are left out'),
  rename: z.record(z.string(), z.string()).default({}).describe('distribution to Debian name'),
  depends: z
    .record(z.string(), z.array(z.string()))
    .default({})
    .describe('built package to further relations, as in Depends'),
  npm: z
    .enum(['bundle', 'packages'])
    .default('bundle')
    .describe('npm trees: whole in one package, or a package for each'),
  'allow-scripts': z
    .array(z.string())
    .default([])
    .describe('npm packages, NAME or NAME@VERSION, whose install scripts may run'),
  isolation: z
    .enum(['auto', 'root', 'host'])
    .default('auto')
    .describe('where sources are built: in a clone of a build root, or on this machine'),
  network: z.boolean().default(false).describe('builds in a root may reach the network'),
  changes: z.boolean().default(false).describe('.changes and .buildinfo beside the packages, too'),
  sbom: z.boolean().default(false).describe('write a bill of materials beside each package: SPDX 2.3, JSON'),
  'check-contents': z.boolean().default(false).describe('look in Contents of the suite for files that we have, too'),
  mirror: z.url().optional().describe('where to read what the suite has, if this machine does not follow it'),
});

const repo = z.strictObject({
  dir: z.string().default('repo').describe('folder of the repository'),
  suites: z.array(z.string()).optional().describe('codenames; default: the suite above'),
  components: z.array(z.string()).min(1).default(['main']).describe('sections of each suite'),
  architectures: z.array(z.string()).min(1).default(['amd64']).describe('beside all'),
  origin: z.string().optional().describe('Origin in Release; default: the name above'),
  label: z.string().optional().describe('Label in Release; default: the name above'),
  'valid-for': duration.default('14d').describe('until Valid-Until in Release'),
  key: z.string().optional().describe('fingerprint of the signing key; default: the only key there is'),
  listen: z.string().default('127.0.0.1:8080').describe('address of repo serve'),
});

const vm = z.strictObject({
  accel: z.enum(['auto', 'kvm', 'tcg']).default('auto').describe('auto tries KVM and falls back to emulation'),
  memory: z
    .string()
    .regex(/^\d+[MG]$/, "a number and M or G, for example '1024M'")
    .default('1024M')
    .describe('of each machine'),
  cpus: z.int().min(1).max(256).default(2).describe('of each machine'),
  base: z
    .strictObject({
      size: z
        .string()
        .regex(/^\d+[MG]$/, "a number and M or G, for example '8G'")
        .default('8G')
        .describe('of the virtual disk'),
      include: z.array(z.string()).default([]).describe('Debian packages beside the minimum'),
      mirror: z.string().optional().describe("default: the mirror in this machine's apt configuration"),
    })
    .prefault({}),
});

const key = z.strictObject({
  name: z.string().optional().describe('user id of a key that release run makes; default: the name above'),
  email: z.string().optional().describe('mail address in that user id'),
  algorithm: z.enum(['ed25519', 'rsa4096']).default('ed25519').describe('rsa4096 for clients older than Debian 12'),
  expires: z.string().default('2y').describe('how long a new key lives'),
});

const release = z.strictObject({
  install: z
    .array(z.string())
    .optional()
    .describe('packages that the test machine installs; default: those built from packages'),
  checks: z
    .array(z.union([httpCheck, commandCheck, serviceCheck]))
    .default([])
    .describe('what must hold in the test machine after the installation'),
});

const proxyBackend = z.strictObject({
  mirrors: z
    .array(z.url({ protocol: /^https?$/ }))
    .min(1)
    .describe('base addresses, the preferred first'),
  aliases: z.array(z.string()).optional().describe('addresses that mean this back end, too'),
  signatures: z.enum(['require', 'accept']).optional().describe('accept: serve Release files of unknown signers, too'),
  'max-age': z.int().min(0).optional().describe('seconds for which what may change is not asked for again'),
});

const proxy = z.strictObject({
  use: z
    .union([z.enum(['off', 'auto']), z.url({ protocol: /^http$/ })])
    .default('off')
    .describe('what builds, base images and test machines fetch through: off, auto (find or start one) or an address'),
  listen: z.array(z.string()).min(1).default(['127.0.0.1:9999']).describe('addresses of proxy serve'),
  dir: z.string().optional().describe('folder of the cache; default: proxy below the cache folder'),
  backends: z
    .record(z.string(), proxyBackend)
    .default({})
    .describe('archives by name, beside debian, security, ubuntu, ports'),
  hosts: z.array(z.string()).default([]).describe("hosts that clients may name beside the back ends: '*.example.org'"),
  'inner-hosts': z.array(z.string()).default([]).describe('upstream hosts that may be at inner addresses'),
  clients: z.array(z.string()).optional().describe("networks that are served; default: private ones; 'all'"),
  connect: z.array(z.string()).default([]).describe('HOST:PORT that CONNECT tunnels may reach'),
  keyrings: z.array(z.string()).default([]).describe("files with public keys beside Debian's and Ubuntu's"),
  'max-age': z.int().min(0).default(120).describe('seconds for which what may change is not asked for again'),
  quota: z
    .string()
    .regex(/^\d+[kMGT]$/, "a number and k, M, G or T, for example '20G'")
    .optional()
    .describe('the most that the cache may hold; default: no limit'),
  'max-unused-days': z.int().min(0).default(0).describe('what nobody used for this long goes; 0: never'),
  'only-verified': z.boolean().default(false).describe('refuse packages that no signed index names'),
  'npm-registry': z
    .url({ protocol: /^https?$/ })
    .optional()
    .describe('behind /npm/'),
  'pypi-index': z
    .url({ protocol: /^https?$/ })
    .optional()
    .describe('behind /pypi/simple/'),
});

export const configSchema = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z0-9][a-z0-9+.-]+$/, 'lower case letters, digits, "+", "-" and "."; two at least')
    .default('buildkit-workspace')
    .describe('of the workspace'),
  state: z
    .string()
    .min(1)
    .optional()
    .describe('folder of keys, machines and caches, from here; default: see buildkit config show'),
  suite: z.string().default('bookworm').describe('codename of the Debian release to build for'),
  packages: z.array(z.string()).min(1).default(['.']).describe('folders or requirements that release run builds'),
  pkg: pkg.prefault({}).describe('how .deb files are built'),
  package: manifestSchema.optional().describe('a package said in full, built from this folder'),
  key: key.prefault({}).describe('the signing key'),
  repo: repo.prefault({}).describe('the apt repository'),
  vm: vm.prefault({}).describe('test machines'),
  proxy: proxy.prefault({}).describe('the apt cache'),
  release: release.prefault({}).describe('what release run installs and checks'),
});

export type Config = z.infer<typeof configSchema>;
