import type { MultipartFile } from '@fastify/multipart';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { RunJarRequest } from '../../contracts/dispatcher-gateway.ts';
import { claimModeSchema, MAX_PARALLELISM_LIMIT } from '../../contracts/job-graph.ts';
import { jobIdSchema } from '../../contracts/schemas.ts';
import { InvalidArgumentError, MillraceError } from '../../kernel/errors.ts';
import { asJarId, type JarId } from '../../kernel/ids.ts';
import { parseInput } from '../input.ts';
import { graphPlanJson } from '../json/job-json.ts';
import type { RestDeps } from '../ports.ts';

const parallelism = z.coerce.number().int().min(1).max(MAX_PARALLELISM_LIMIT);
const flag = z.union([z.boolean(), z.enum(['true', 'false']).transform((text) => text === 'true')]);

/** LEGACY left it open who may delete what; a cluster that deletes must know. */
const claimMode = z.string().transform((text, issue) => {
  const mode = claimModeSchema.safeParse(text.toUpperCase());
  if (mode.success) return mode.data;
  const message =
    text.toUpperCase() === 'LEGACY'
      ? 'LEGACY is not supported: it leaves open who deletes the savepoint; use CLAIM or NO_CLAIM'
      : 'CLAIM or NO_CLAIM is expected';
  issue.addIssue({ code: 'custom', message });
  return z.NEVER;
});

/** The body, as Flink's; `null` stands for absent there. */
const runBody = z
  .object({
    entryClass: z.string().min(1).max(300).nullish(),
    programArgs: z.string().max(100_000).nullish(),
    programArgsList: z.array(z.string().max(10_000)).max(1_000).nullish(),
    parallelism: parallelism.nullish(),
    jobId: jobIdSchema.nullish(),
    savepointPath: z.string().max(512).nullish(),
    allowNonRestoredState: flag.nullish(),
    claimMode: claimMode.nullish(),
    /** As Flink 1 called it. */
    restoreMode: claimMode.nullish(),
  })
  .loose();

const runQuery = z
  .object({
    'entry-class': z.string().min(1).max(300).optional(),
    'program-args': z.string().max(100_000).optional(),
    programArg: z.string().max(100_000).optional(),
    parallelism: parallelism.optional(),
    savepointPath: z.string().max(512).optional(),
    allowNonRestoredState: flag.optional(),
    claimMode: claimMode.optional(),
  })
  .loose();

const idempotencyKeySchema = z.string().regex(/^[\x21-\x7e]{1,200}$/, 'up to 200 visible ASCII characters');

export function jarRoutes(
  app: FastifyInstance,
  { dispatcher, ha }: RestDeps,
  { maxContentBytes }: { readonly maxContentBytes: number },
): void {
  app.post('/jars/upload', async (request) => {
    if (!request.isMultipart()) {
      throw new InvalidArgumentError(
        'Expected a multipart/form-data upload with one file, e.g. curl -F "jarfile=@job.mjs" …/jars/upload.',
      );
    }
    const file = await request.file();
    if (file === undefined) throw new InvalidArgumentError('The upload holds no file.');
    const bytes = await wholeFile(file, maxContentBytes);
    // A part may have an empty name; the parser's types do not know it.
    if (!file.filename) throw new InvalidArgumentError('The uploaded file has no name.');
    if (bytes.length === 0) throw new InvalidArgumentError(`The uploaded file "${file.filename}" is empty.`);
    const jar = await dispatcher.uploadJar(file.filename, bytes);
    return { filename: jar.id, status: 'success' };
  });

  app.get('/jars', async () => ({
    address: ha.restUrl(),
    files: (await dispatcher.listJars()).map((jar) => ({
      id: jar.id,
      name: jar.name,
      uploaded: jar.uploadedMs,
      entry: jar.entries.map((name) => ({ name, description: null })),
    })),
  }));

  app.delete('/jars/:jarid', async (request) => {
    await dispatcher.deleteJar(jarIdOf(request.params));
    return {};
  });

  app.post('/jars/:jarid/run', async (request) => {
    const result = await dispatcher.runJar(jarIdOf(request.params), runRequest(request));
    return { jobid: result.jobId };
  });

  for (const method of ['GET', 'POST'] as const) {
    app.route({
      method,
      url: '/jars/:jarid/plan',
      handler: async (request) => graphPlanJson(await dispatcher.planJar(jarIdOf(request.params), runRequest(request))),
    });
  }
}

/** The parser gives the beginning of a file that is too large as if it were all, unless it happens to notice. */
async function wholeFile(file: MultipartFile, maxContentBytes: number): Promise<Buffer> {
  const bytes = await file.toBuffer().catch((error: unknown) => {
    if (!file.file.truncated) throw error;
    return undefined;
  });
  if (bytes !== undefined && !file.file.truncated) return bytes;
  throw new MillraceError(
    'TOO_LARGE',
    `The uploaded file is larger than ${maxContentBytes} bytes, which is the limit of this cluster.`,
    { hint: 'It is set by rest.server.max-content-length.' },
  );
}

function jarIdOf(params: unknown): JarId {
  return asJarId((params as { jarid: string }).jarid);
}

/** The body wins over the query, as in Flink. */
function runRequest(request: FastifyRequest): RunJarRequest {
  const body = parseInput('the body', runBody, request.body ?? {});
  const query = parseInput('the query', runQuery, request.query ?? {});
  const key = request.headers['idempotency-key'];
  const entryClass = body.entryClass ?? query['entry-class'];
  const chosen = body.parallelism ?? query.parallelism;
  const savepointPath = (body.savepointPath ?? query.savepointPath) || undefined;
  const claims = body.claimMode ?? body.restoreMode ?? query.claimMode;
  return {
    programArgs:
      body.programArgsList ??
      split(body.programArgs ?? undefined) ??
      query.programArg?.split(',') ??
      split(query['program-args']) ??
      [],
    allowNonRestoredState: body.allowNonRestoredState ?? query.allowNonRestoredState ?? false,
    ...(entryClass === undefined ? {} : { entryClass }),
    ...(chosen === undefined ? {} : { parallelism: chosen }),
    ...(body.jobId ? { jobId: body.jobId } : {}),
    ...(key === undefined ? {} : { idempotencyKey: parseInput('Idempotency-Key', idempotencyKeySchema, key) }),
    ...(savepointPath === undefined ? {} : { savepointPath }),
    ...(claims === undefined ? {} : { claimMode: claims }),
  };
}

/** Blank-separated arguments; single or double quotes keep blanks together. */
function split(text: string | undefined): string[] | undefined {
  if (text === undefined) return undefined;
  return [...text.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map((match) => match[1] ?? match[2] ?? match[3] ?? '');
}
