import { existsSync } from 'node:fs';

const LIBRARIES = ['x86_64-linux-gnu', 'aarch64-linux-gnu'].map((arch) => `/usr/lib/${arch}/faketime/libfaketime.so.1`);

/** Debian's libfaketime, if it is installed. */
export function fakeTimeLibrary(): string | undefined {
  return LIBRARIES.find((path) => existsSync(path));
}

/** Makes the wall clock of a process wrong, and leaves the monotonic one alone. */
export function offsetClock(offset: string): Record<string, string> {
  return { LD_PRELOAD: fakeTimeLibrary() ?? '', FAKETIME: offset, FAKETIME_DONT_FAKE_MONOTONIC: '1' };
}
