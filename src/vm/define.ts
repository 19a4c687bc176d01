/**
 * A machine described in a file: where its image comes from, what it has, how it is reached.
 *
 * Secret: the keys of that file (YAML or JSON), and which of them belong to the base, to the machine, to each of its starts.
 */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { parseDocument } from 'yaml';
import { z } from 'zod';
import type { Context } from '../core/context.ts';
import { type Problem, ProblemsError, UserError } from '../core/errors.ts';
import { findBase } from './base.ts';
import { fetchBase } from './fetch-base.ts';
import { type LaunchOptions, parseForward, parseShare, parseVnc } from './launch-options.ts';
import { createVm, type MachineRecord } from './machine.ts';

const digests = z.strictObject({
  md5: z.string().optional(),
  sha256: z.string().optional(),
  sha512: z.string().optional(),
});
const imageSchema = z.strictObject({
  /** Of an image that is downloaded; or `file`: a file or block device, used in place. */
  url: z.string().optional(),
  file: z.string().optional(),
  /** Of what is downloaded, and of the image once it is unpacked. */
  digests: digests.optional(),
  'image-digests': digests.optional(),
  /** Keyring with the publisher's keys, whose signature lies beside the image. */
  signature: z.string().optional(),
  /** Id of the base that is made of it. */
  name: z.string().optional(),
  suite: z.string().optional(),
});
const strings = z.array(z.string());

const definitionSchema = z.strictObject({
  name: z.string().optional(),
  number: z.int().optional(),
  /** A base that is there, by id or suite; or `image`. */
  base: z.string().optional(),
  image: z.union([z.string(), imageSchema]).optional(),
  directory: z.string().optional(),
  raw: z.boolean().optional(),
  memory: z.string().optional(),
  cpus: z.int().min(1).max(256).optional(),
  accel: z.enum(['auto', 'kvm', 'tcg']).optional(),
  'disk-interface': z.enum(['virtio', 'scsi', 'ide']).optional(),
  snapshot: z.boolean().optional(),
  vnc: z.string().optional(),
  graphics: z.boolean().optional(),
  /** `tcp:8080:80` */
  forward: strings.optional(),
  /** Each as QEMU's -netdev takes it, with an id. */
  netdev: strings.optional(),
  /** `DIR:TAG`, `DIR:TAG:rw` */
  share: strings.optional(),
  ssh: z
    .strictObject({
      port: z.int().min(1).max(65535).optional(),
      key: z.string().optional(),
      user: z
        .string()
        .regex(/^[a-z_][a-z0-9_-]{0,31}$/, 'a user name as useradd takes it')
        .optional(),
      host: z
        .string()
        .regex(/^[A-Za-z0-9.:-]+$/, 'an address of this machine')
        .optional(),
    })
    .optional(),
  'exec-on-boot': strings.optional(),
  'qemu-options': strings.optional(),
  'kernel-parameters': strings.optional(),
});
type Definition = z.infer<typeof definitionSchema>;

export interface MachinePlan {
  readonly nameOrNumber: string;
  readonly name: string | undefined;
  readonly base: string | undefined;
  readonly image: Parameters<typeof fetchBase>[1] | undefined;
  readonly options: Pick<Definition, 'raw' | 'memory' | 'cpus' | 'accel' | 'directory'>;
  readonly launch: LaunchOptions;
}

/** Reads a definition. @throws UserError `no-such-file`, `vm-definition`, and as `planDefinition` does */
export async function readDefinition(file: string): Promise<MachinePlan> {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new UserError('no-such-file', `there is no file '${file}'`, { file, cause });
  });
  const document = parseDocument(text); // JSON is YAML
  const [error] = document.errors;
  if (error) throw new UserError('vm-definition', `'${file}' is no YAML: ${error.message}`, { file, cause: error });
  return planDefinition(document.toJS(), dirname(resolve(file)));
}

/**
 * What the parsed content of a definition means. Pure.
 * @param folder that relative paths refer to
 * @throws ProblemsError with everything that is wrong; UserError `forward`, `share`, `vnc`
 */
export function planDefinition(content: unknown, folder: string): MachinePlan {
  const parsed = definitionSchema.safeParse(content);
  if (!parsed.success) {
    const problems = parsed.error.issues.flatMap(problemsOf);
    throw new ProblemsError('vm-definition', 'the definition has mistakes', problems);
  }
  const definition = parsed.data;
  const { name, number, base, image } = definition;
  if (name === undefined && number === undefined)
    throw wrong('the definition names no machine', 'add name: or number:');
  if (base !== undefined && image !== undefined) {
    throw wrong("the definition has both 'base' and 'image'", 'an image becomes a base: leave one of them out');
  }
  const at = (path: string) => resolve(folder, path);
  const { raw, memory, cpus, accel, directory } = definition;
  return {
    nameOrNumber: number === undefined ? name! : String(number),
    name: number === undefined ? undefined : name,
    base,
    image: image === undefined ? undefined : planImage(image, folder),
    options: given({ raw, memory, cpus, accel, directory: directory && at(directory) }),
    launch: planLaunch(definition, at),
  };
}

function planImage(image: NonNullable<Definition['image']>, folder: string): Parameters<typeof fetchBase>[1] {
  const facts = typeof image === 'string' ? { url: image } : image;
  const { url, file, name, suite, signature } = facts as z.infer<typeof imageSchema>;
  const source = url ?? file;
  if (source === undefined || (url !== undefined && file !== undefined)) {
    throw wrong("'image' says not where the image is", 'write url: or file:');
  }
  const { digests: packed = {}, 'image-digests': unpacked = {} } = facts as z.infer<typeof imageSchema>;
  return {
    ...{ source, cwd: folder, name, suite },
    keyring: signature === undefined ? undefined : resolve(folder, signature),
    digests: given(packed),
    imageDigests: given(unpacked),
  };
}

function planLaunch(definition: Definition, at: (path: string) => string): LaunchOptions {
  const { snapshot, vnc, graphics, forward, netdev, share, ssh } = definition;
  return given({
    diskInterface: definition['disk-interface'],
    ...{ snapshot, graphics, netdevs: netdev },
    vnc: vnc === undefined ? undefined : parseVnc(vnc),
    forwards: forward?.map(parseForward),
    shares: share?.map((one) => parseShare(one, at)),
    ssh: ssh && given({ ...ssh, key: ssh.key && at(ssh.key) }),
    execOnBoot: definition['exec-on-boot'],
    qemuOptions: definition['qemu-options'],
    kernelParameters: definition['kernel-parameters'],
  });
}

function wrong(message: string, hint: string): UserError {
  return new UserError('vm-definition', message, { hint });
}

function problemsOf(issue: z.core.$ZodIssue): Problem[] {
  const where = issue.path.join('.');
  const unknown =
    issue.code === 'unrecognized_keys' ? issue.keys.map((key) => `unknown key '${key}'`) : [issue.message];
  return unknown.map((message) => ({
    code: 'vm-definition',
    message,
    subject: where === '' ? 'the definition' : where,
  }));
}

function given<T extends object>(values: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never;
}

/**
 * Makes the machine, its base first where that comes from an image.
 * @param defaults for what the definition does not say
 * @throws as `planDefinition`, `fetchBase` and `createVm` do
 */
export async function defineVm(
  context: Context,
  plan: MachinePlan,
  defaults: {
    readonly base: string;
    readonly memory?: string;
    readonly cpus?: number;
    readonly accel?: 'auto' | 'kvm' | 'tcg';
  },
): Promise<MachineRecord> {
  const base = plan.image ? await fetchBase(context, plan.image) : await findBase(context, plan.base ?? defaults.base);
  const { name, launch } = plan;
  return createVm(context, plan.nameOrNumber, { ...defaults, ...plan.options, name, launch, base: base.id });
}
