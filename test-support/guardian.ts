import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * Leaves nothing behind, however this process ends.
 *
 * An `exit` handler covers orderly ends. It does not run on SIGKILL, or when a test runner ends its
 * worker; so a small shell waits on a pipe that only we hold open. When the pipe closes we are gone:
 * it kills the process groups and removes the folders, network namespaces, links and mounts that it was told of. A group is killed only if
 * its leader still has the start time it had then, so a reused pid is never hit.
 */
const SCRIPT = `
trap '' INT TERM HUP
list=
while read -r kind what start; do list="$list$kind $what $start
"; done
echo "$list" | while read -r kind what start; do
  [ "$kind" = group ] || continue
  if [ "$start" != - ]; then
    { read -r stat < "/proc/$what/stat"; } 2>/dev/null || continue
    set -- \${stat##*) }
    [ "\${20}" = "$start" ] || continue
  fi
  kill -s KILL -- "-$what" 2>/dev/null
done
echo "$list" | while read -r kind what start; do
  case "$kind" in
    netns) ip netns del "$what" 2>/dev/null ;;
    link) ip link del "$what" 2>/dev/null ;;
    mount) umount -l -- "$what" 2>/dev/null ;;
  esac
done
echo "$list" | while read -r kind what start; do
  [ "$kind" = folder ] && rm -rf -- "$what"
done
`;

export const TEMP_PREFIX = 'millrace-';

let shell: ChildProcess | undefined;
const groups = new Set<number>();
const folders = new Set<string>();
/** Namespaces, links and mounts, with the command that takes each away. */
const system = new Map<string, readonly string[]>();

/** A new folder under the system's temporary one; removed with everything in it when this process ends. */
export function makeTempFolder(purpose: string): string {
  const folder = mkdtempSync(join(tmpdir(), `${TEMP_PREFIX}${purpose}-`));
  // The shell's list is made of lines and words.
  if (/\s/.test(folder)) throw new Error(`the temporary folder must not contain white space: ${folder}`);
  folders.add(folder);
  tell(`folder ${folder} -`);
  return folder;
}

export function removeTempFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  folders.delete(folder);
}

/** From now on the process group `pid` does not outlive this process. */
export function guardGroup(pid: number): void {
  groups.add(pid);
  tell(`group ${pid} ${startTimeOf(pid) ?? '-'}`);
}

export function unguardGroup(pid: number): void {
  groups.delete(pid);
}

/** The network namespace of this name, which may not exist yet, does not outlive this process. */
export function guardNamespace(name: string): void {
  system.set(name, ['ip', 'netns', 'del', name]);
  tell(`netns ${name} -`);
}

export function guardLink(name: string): void {
  system.set(name, ['ip', 'link', 'del', name]);
  tell(`link ${name} -`);
}

/** A file system mounted in a folder that is guarded too. */
export function guardMount(folder: string): void {
  system.set(folder, ['umount', '-l', folder]);
  tell(`mount ${folder} -`);
}

export function unguardNetwork(name: string): void {
  system.delete(name);
}

export function unguardMount(folder: string): void {
  system.delete(folder);
}

/** In clock ticks since boot; together with the pid it names one process for ever. Undefined without /proc. */
function startTimeOf(pid: number): string | undefined {
  return statFields(pid)?.[19];
}

/** `waiting`: in the kernel, not to be interrupted (disk, or a child that is just being started). */
export type ProcessState = 'running' | 'waiting' | 'stopped' | 'zombie' | 'gone';

/**
 * What the system says of a process. `kill(pid, 0)` is no answer: it succeeds for a zombie, and an
 * orphan in a container may stay one for ever.
 */
export function processState(pid: number): ProcessState {
  switch (statFields(pid)?.[0]) {
    case undefined:
      return 'gone';
    case 'Z':
    case 'X':
      return 'zombie';
    case 'T':
    case 't':
      return 'stopped';
    case 'D':
      return 'waiting';
    default:
      return 'running';
  }
}

/** Whether the process may still do something: neither gone nor a zombie. */
export function processLives(pid: number): boolean {
  const state = processState(pid);
  return state !== 'gone' && state !== 'zombie';
}

/** The fields of /proc/pid/stat after the name, which may itself hold spaces and parentheses. */
function statFields(pid: number): readonly string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined; // Gone, or a system without /proc.
  }
}

function tell(line: string): void {
  shell ??= startShell();
  shell.stdin?.write(`${line}\n`);
}

function startShell(): ChildProcess {
  // Detached: Ctrl-C in the terminal must reach us, not the guardian.
  const child = spawn('sh', ['-c', SCRIPT], { stdio: ['pipe', 'ignore', 'ignore'], detached: true, cwd: '/' });
  child.on('error', (error) => {
    throw new Error('cannot start the shell that cleans up after this process', { cause: error });
  });
  child.unref();
  if (child.stdin !== null && 'unref' in child.stdin && typeof child.stdin.unref === 'function') child.stdin.unref();
  process.on('exit', cleanUpNow);
  return child;
}

function cleanUpNow(): void {
  for (const pid of groups) {
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // Already gone; this runs while the process exits and has nobody to tell.
    }
  }
  for (const [command = '', ...args] of system.values()) spawnSync(command, args, { stdio: 'ignore' });
  for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
}
