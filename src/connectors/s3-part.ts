import type { MultipartStore, UploadedPart, UploadName } from '../contracts/multipart-store.ts';
import { asError } from '../kernel/errors.ts';
import type { Backlog } from './part-file.ts';

/** Rows are gathered up to this many characters before they are encoded. */
const BATCH_CHARS = 64 * 1024;
/** S3 takes 10,000 parts; one is for what is left at the end. */
const FULL_PARTS = 9_999;

/** One object that is being written: complete and durable, waiting to be made visible. Plain data. */
export interface S3Committable extends UploadName {
  readonly bucket: string;
  readonly parts: readonly UploadedPart[];
  readonly bytes: number;
}

export interface S3PartDeps {
  readonly bucket: string;
  readonly store: MultipartStore;
  readonly backlog: Backlog;
  readonly uploadBytes: number;
  /** Runs a call again while the store is away. */
  readonly patiently: <R>(work: () => Promise<R>) => Promise<R>;
}

/** One object on its way to the store. Rows are taken synchronously; parts follow one after the other. */
export class S3Part {
  private text = '';
  private gathered: Buffer[] = [];
  private gatheredBytes = 0;
  private taken = 0;
  private uploadId: string | undefined;
  private readonly parts: UploadedPart[] = [];
  private partsBegun = 0;
  private sealed = false;
  /** All calls for the object. Never rejects: a failure is kept in the backlog. */
  private steps: Promise<void> = Promise.resolve();

  constructor(
    private readonly key: string,
    private readonly deps: S3PartDeps,
  ) {}

  /** Bytes taken so far; rows not yet encoded count by their characters. */
  get size(): number {
    return this.taken + this.text.length;
  }

  get full(): boolean {
    return this.partsBegun >= FULL_PARTS;
  }

  append(row: string | Uint8Array): void {
    if (typeof row === 'string') {
      this.text += `${row}\n`;
      if (this.text.length >= BATCH_CHARS) this.encode();
    } else {
      this.encode();
      this.gather(Buffer.concat([row, Buffer.from('\n')]));
    }
  }

  /** Takes no more rows; what it has goes out. */
  seal(): void {
    if (this.sealed) return;
    this.sealed = true;
    this.encode();
    if (this.gatheredBytes > 0) this.sendGathered();
  }

  /** Seals, and resolves once every part is durable. */
  async finish(): Promise<S3Committable> {
    this.seal();
    await this.steps;
    const { uploadId, key } = this;
    if (this.deps.backlog.failure !== undefined) throw this.deps.backlog.failure;
    if (uploadId === undefined) throw new Error(`${key} has no rows`); // A part begins with one.
    return { bucket: this.deps.bucket, key, uploadId, parts: this.parts, bytes: this.taken };
  }

  /** Throws the parts away, whatever state it is in. */
  async discard(): Promise<void> {
    this.text = '';
    this.gathered = [];
    await this.steps;
    if (this.uploadId !== undefined) await this.deps.store.abort({ key: this.key, uploadId: this.uploadId });
  }

  private encode(): void {
    if (this.text === '') return;
    const bytes = Buffer.from(this.text);
    this.text = '';
    this.gather(bytes);
  }

  private gather(bytes: Buffer): void {
    this.gathered.push(bytes);
    this.gatheredBytes += bytes.length;
    this.taken += bytes.length;
    if (this.gatheredBytes >= this.deps.uploadBytes) this.sendGathered();
  }

  private sendGathered(): void {
    const bytes = Buffer.concat(this.gathered);
    this.gathered = [];
    this.gatheredBytes = 0;
    this.partsBegun++;
    this.deps.backlog.add(bytes.length);
    this.steps = this.steps.then(() => this.send(bytes));
  }

  private async send(bytes: Buffer): Promise<void> {
    const { backlog, patiently, store } = this.deps;
    const { key } = this;
    try {
      // A hole must never be completed: after one failure nothing of this writer is sent.
      if (backlog.failure !== undefined) return;
      const uploadId = this.uploadId ?? (await patiently(() => store.create(key)));
      this.uploadId = uploadId;
      const number = this.parts.length + 1;
      this.parts.push(await patiently(() => store.uploadPart({ key, uploadId }, number, bytes)));
    } catch (error) {
      backlog.fail(asError(error));
    } finally {
      backlog.remove(bytes.length);
    }
  }
}
