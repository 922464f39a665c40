import type { KeyGroupRange } from '../contracts/key-groups.ts';
import type { KeyedStateHandle, StateHandle } from '../contracts/state-handles.ts';

/**
 * Which sections an incremental snapshot may refer to instead of writing them again.
 *
 * Invariants:
 *   R1. Only sections of a completed checkpoint are referred to (the *base*: the newest known), and only
 *       those in shared objects of this job: savepoints and other jobs' objects are not ours to keep alive.
 *   R2. A snapshot refers to a section of the base only if every snapshot in between that may still
 *       complete refers to the same one. Otherwise the one in between could complete, the base be
 *       subsumed, and its object deleted before the last of them completes and needs it.
 *   R3. The objects that one snapshot refers to are few, and hold little that is not referred to.
 *   R4. When a checkpoint completes that is not known here, though it is newer than the base, nothing is
 *       referred to: what it does not hold may go at any time.
 */
export class SharedSections {
  private base: Base | undefined;
  /** Snapshots that may yet complete, in the order of their cuts. */
  private candidates: Candidate[] = [];
  /** Savepoints that may yet complete: they end no other's life. */
  private readonly savepoints = new Set<number>();

  constructor(private readonly isShared: (objectKey: string) => boolean) {}

  /** What was restored holds the state as of `cut`. */
  restored(range: KeyGroupRange, cut: number, handles: readonly KeyedStateHandle[], checkpointId: number): void {
    this.base = { checkpointId, cut, sections: sectionsOf(range, handles) };
  }

  /** The next snapshot writes everything. */
  forget(): void {
    this.base = undefined;
  }

  beginSavepoint(checkpointId: number): void {
    this.savepoints.add(checkpointId);
  }

  /** `full`: it refers to nothing. */
  begin(checkpointId: number, cut: number, { full = false }: { readonly full?: boolean } = {}): SnapshotPlan {
    const base = full ? undefined : this.base;
    const between = base === undefined ? [] : this.candidates.filter((other) => other.cut > base.cut);
    const candidate: Candidate = { checkpointId, cut, referred: new Set(), sections: undefined };
    this.candidates.push(candidate);
    const rewritten = base === undefined ? new Set<string>() : objectsToRewrite(base.sections);
    return {
      baseCut: base?.cut ?? cut,
      baseCheckpointId: base?.checkpointId,
      referable: (group) => {
        const section = base?.sections[group];
        if (section === undefined || section.handle.kind !== 'object') return undefined;
        const { key } = section.handle;
        if (rewritten.has(key) || !this.isShared(key)) return undefined; // R1, R3
        return between.every(({ referred }) => referred.has(group)) ? section : undefined; // R2
      },
      referred: (group) => void candidate.referred.add(group),
      written: (sections) => {
        candidate.sections = sections;
      },
      failed: () => this.drop(candidate),
    };
  }

  completed(checkpointId: number): void {
    if (this.savepoints.delete(checkpointId)) return;
    const candidate = this.candidates.find((one) => one.checkpointId === checkpointId);
    if (candidate === undefined && this.base !== undefined && checkpointId > this.base.checkpointId) this.forget(); // R4
    if (candidate?.sections === undefined) return;
    this.base = { checkpointId, cut: candidate.cut, sections: candidate.sections };
    this.candidates = this.candidates.filter(({ cut }) => cut > candidate.cut);
  }

  aborted(checkpointId: number): void {
    this.savepoints.delete(checkpointId);
    this.candidates = this.candidates.filter((one) => one.checkpointId !== checkpointId);
  }

  private drop(candidate: Candidate): void {
    this.candidates = this.candidates.filter((one) => one !== candidate);
  }
}

/** What one snapshot asks and tells about its key groups, counted from the first of the range. */
export interface SnapshotPlan {
  /** Groups that have not changed after it may be referred to. */
  readonly baseCut: number;
  readonly baseCheckpointId: number | undefined;
  referable(group: number): Section | undefined;
  /** The snapshot has decided to refer to the section of the base. */
  referred(group: number): void;
  /** All is stored. */
  written(sections: Sections): void;
  /** It will never be acknowledged. */
  failed(): void;
}

/** The bytes of one key group inside an object. */
export interface Section {
  readonly handle: StateHandle;
  readonly start: number;
  readonly end: number;
  /** Of all sections in the object that were ever of use here. */
  readonly usefulBytes: number;
}

/** By key group, counted from the first of the range; undefined for those without state. */
export type Sections = readonly (Section | undefined)[];

interface Base {
  readonly checkpointId: number;
  readonly cut: number;
  readonly sections: Sections;
}

interface Candidate {
  readonly checkpointId: number;
  readonly cut: number;
  /** Groups that it has decided to refer to; of the others it may yet decide either way. */
  readonly referred: Set<number>;
  sections: Sections | undefined;
}

/** Each object is a read on restore, and kept as long as one section of it is in use. */
const OBJECTS_MAX = 8;
/** Bytes kept for each byte in use, at most. */
const AMPLIFICATION_MAX = 2;

/** R3: objects to be emptied, those first that are least in use. */
export function objectsToRewrite(sections: Sections): Set<string> {
  const objects = new Map<string, { usedBytes: number; usefulBytes: number }>();
  for (const section of sections) {
    if (section?.handle.kind !== 'object') continue;
    const object = objects.get(section.handle.key) ?? { usedBytes: 0, usefulBytes: section.usefulBytes };
    object.usedBytes += section.end - section.start;
    objects.set(section.handle.key, object);
  }
  const worstFirst = [...objects].sort(([, a], [, b]) => a.usedBytes / a.usefulBytes - b.usedBytes / b.usefulBytes);
  let usedBytes = 0;
  let keptBytes = 0;
  for (const [, object] of objects) {
    usedBytes += object.usedBytes;
    keptBytes += object.usefulBytes;
  }
  const rewritten = new Set<string>();
  for (const [key, object] of worstFirst) {
    // The snapshot adds an object of its own.
    if (objects.size - rewritten.size < OBJECTS_MAX && keptBytes <= usedBytes * AMPLIFICATION_MAX) break;
    rewritten.add(key);
    // Its used bytes are kept in the new object.
    keptBytes += object.usedBytes - object.usefulBytes;
  }
  return rewritten;
}

function sectionsOf(range: KeyGroupRange, handles: readonly KeyedStateHandle[]): Sections {
  const sections: (Section | undefined)[] = Array.from({ length: range.last - range.first + 1 });
  const usefulBytes = new Map<string, number>();
  const each = (visit: (group: number, start: number, end: number, handle: StateHandle) => void) => {
    for (const { firstKeyGroup, offsets, handle } of handles) {
      for (let i = 0; i + 1 < offsets.length; i++) {
        const group = firstKeyGroup + i - range.first;
        const [start = 0, end = 0] = [offsets[i], offsets[i + 1]];
        if (end > start && group >= 0 && group < sections.length) visit(group, start, end, handle);
      }
    }
  };
  each((_, start, end, handle) => {
    if (handle.kind === 'object') usefulBytes.set(handle.key, (usefulBytes.get(handle.key) ?? 0) + end - start);
  });
  each((group, start, end, handle) => {
    const useful = handle.kind === 'object' ? (usefulBytes.get(handle.key) ?? 0) : end - start;
    sections[group] = { handle, start, end, usefulBytes: useful };
  });
  return sections;
}

/**
 * Handles for sections: one for each run of key groups whose bytes follow each other in one object, so
 * that every group's bytes are in exactly one handle.
 */
export function handlesOf(range: KeyGroupRange, sections: Sections): readonly KeyedStateHandle[] {
  const handles: KeyedStateHandle[] = [];
  let run: { firstKeyGroup: number; offsets: number[]; handle: StateHandle } | undefined;
  for (const [i, section] of sections.entries()) {
    const keyGroup = range.first + i;
    if (section === undefined) {
      run?.offsets.push(run.offsets.at(-1) ?? 0);
      continue;
    }
    if (run === undefined || !isSame(run.handle, section.handle) || run.offsets.at(-1) !== section.start) {
      // The first run takes the empty groups before it along.
      const firstKeyGroup = run === undefined ? range.first : keyGroup;
      run = {
        firstKeyGroup,
        offsets: Array.from({ length: keyGroup - firstKeyGroup + 1 }, () => section.start),
        handle: section.handle,
      };
      handles.push({ ...run, lastKeyGroup: 0 });
    }
    run.offsets.push(section.end);
  }
  return handles.map((handle) => ({ ...handle, lastKeyGroup: handle.firstKeyGroup + handle.offsets.length - 2 }));
}

function isSame(a: StateHandle, b: StateHandle): boolean {
  return a === b || (a.kind === 'object' && b.kind === 'object' && a.key === b.key);
}
