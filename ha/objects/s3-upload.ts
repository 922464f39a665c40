import {
  type CompletedPart,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import type { ObjectUpload } from '../../src/contracts/object-store.ts';
import { isMillraceError, MillraceError } from '../../src/kernel/errors.ts';
import type { S3Calls } from './s3-object-store.ts';

/** S3's minimum for every part but the last. */
const PART_MIN = 5 * 1024 * 1024;
const PARTS_MAX = 10_000;
/** Parts grow so that 10,000 of them hold more than S3's 5 TiB would at their first size. */
const PARTS_PER_SIZE = 500;

type Phase =
  /** Small objects never become a multipart upload. */
  | { readonly kind: 'gathering' }
  | { readonly kind: 'multipart'; readonly uploadId: string; readonly parts: CompletedPart[] }
  | { readonly kind: 'completed' | 'aborted' };

/** A large object in parts, one request at a time, in the order of the writes. */
export class S3Upload implements ObjectUpload {
  private phase: Phase = { kind: 'gathering' };
  private gathered: Buffer[] = [];
  private gatheredBytes = 0;
  private totalBytes = 0;
  private last: Promise<void> = Promise.resolve();

  constructor(
    private readonly calls: S3Calls,
    private readonly key: string,
  ) {}

  write(bytes: Uint8Array): Promise<void> {
    // Copied now: the caller may use its buffer again.
    const copy = Buffer.from(bytes);
    return this.inTurn(async () => {
      this.gathered.push(copy);
      this.gatheredBytes += copy.length;
      this.totalBytes += copy.length;
      while (this.gatheredBytes >= this.partBytes()) await this.sendPart(this.partBytes());
    });
  }

  complete(): Promise<void> {
    return this.inTurn(async () => {
      if (this.phase.kind === 'gathering') {
        await this.calls.putWhole(this.key, this.take(this.gatheredBytes));
      } else {
        if (this.gatheredBytes > 0) await this.sendPart(this.gatheredBytes);
        await this.finish(this.phase as Phase & { kind: 'multipart' });
      }
      this.phase = { kind: 'completed' };
    });
  }

  async abort(): Promise<void> {
    await this.last.catch(() => undefined); // Whoever wrote that part was told.
    const { phase } = this;
    if (phase.kind === 'completed' || phase.kind === 'aborted') return;
    this.phase = { kind: 'aborted' };
    this.gathered = [];
    if (phase.kind !== 'multipart') return;
    await this.calls.abortUpload(this.key, phase.uploadId);
  }

  private inTurn(work: () => Promise<void>): Promise<void> {
    this.last = this.last.then(async () => {
      if (this.phase.kind === 'completed' || this.phase.kind === 'aborted')
        throw new MillraceError('CONFLICT', `the upload of ${this.key} was ${this.phase.kind}`);
      await work();
    });
    // A failed part fails all that follow: an object with a hole must never be completed.
    this.last.catch(() => undefined);
    return this.last;
  }

  private partBytes(): number {
    const sent = this.phase.kind === 'multipart' ? this.phase.parts.length : 0;
    return PART_MIN * (1 + Math.floor(sent / PARTS_PER_SIZE));
  }

  private async sendPart(bytes: number): Promise<void> {
    if (this.phase.kind === 'gathering') {
      const command = new CreateMultipartUploadCommand(this.calls.at(this.key));
      const { UploadId: uploadId } = await this.calls.send('upload', this.key, 0, (s) =>
        this.calls.client.send(command, s),
      );
      if (uploadId === undefined) throw new MillraceError('INTERNAL', `S3 gave no upload id for ${this.key}`);
      this.phase = { kind: 'multipart', uploadId, parts: [] };
    }
    const { uploadId, parts } = this.phase as Phase & { kind: 'multipart' };
    if (parts.length >= PARTS_MAX) throw new MillraceError('TOO_LARGE', `${this.key} has more than ${PARTS_MAX} parts`);
    const Body = this.take(bytes);
    const PartNumber = parts.length + 1;
    const command = new UploadPartCommand({ ...this.calls.at(this.key), UploadId: uploadId, PartNumber, Body });
    const { ETag } = await this.calls.send('upload', this.key, Body.length, (s) => this.calls.client.send(command, s));
    parts.push({ PartNumber, ETag });
  }

  private async finish({ uploadId, parts }: Phase & { kind: 'multipart' }): Promise<void> {
    const target = { ...this.calls.at(this.key), UploadId: uploadId, MultipartUpload: { Parts: parts } };
    const command = new CompleteMultipartUploadCommand(target);
    try {
      // The server may take its time to put a large object together.
      await this.calls.send('complete', this.key, this.totalBytes, (s) => this.calls.client.send(command, s));
    } catch (error) {
      // A retry whose first try had worked finds no such upload, but the object.
      if (isMillraceError(error, 'CLOSED') || (await this.calls.size(this.key)) !== this.totalBytes) throw error;
    }
  }

  /** The first `bytes` of what was gathered. */
  private take(bytes: number): Buffer {
    const all = this.gathered.length === 1 ? (this.gathered[0] as Buffer) : Buffer.concat(this.gathered);
    this.gathered = [all.subarray(bytes)];
    this.gatheredBytes -= bytes;
    return all.subarray(0, bytes);
  }
}
