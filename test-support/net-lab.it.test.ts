import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ensureInfra, packageRoot } from './ensure-infra.ts';
import { makeTempFolder, removeTempFolder } from './guardian.ts';
import { type LabHost, NetLab } from './net-lab.ts';
import { ManagedProcess } from './processes.ts';
import { until } from './until.ts';

const ECHO = `require('node:http').createServer((q, s) => s.end('here')).listen(8000, () => console.log('up'))`;
/** Asks the peer every 50 ms, and says how it went. */
const ASK = (address: string) => `
const ask = () => fetch('http://${address}:8000', { signal: AbortSignal.timeout(300) })
  .then((a) => a.text(), () => 'silence').then((text) => { console.log(text); setTimeout(ask, 50); });
ask();`;

const probe = await openOrWhy();

async function openOrWhy(): Promise<string | undefined> {
  if (process.getuid?.() === 0) await ensureInfra(['net']);
  const lab = await NetLab.open();
  if (!(lab instanceof NetLab)) return lab.impossible;
  await lab.close();
  return undefined;
}

test.skipIf(probe !== undefined)('hosts reach each other, and not when they are cut off or parted', async () => {
  const dir = makeTempFolder('net-lab');
  const lab = await NetLab.open();
  if (!(lab instanceof NetLab)) throw new Error(lab.impossible);
  try {
    const [server, client] = [await lab.addHost('server'), await lab.addHost('client')];
    const start = (name: string, host: LabHost, program: string) =>
      ManagedProcess.start({
        name,
        ...host.command(process.execPath, ['-e', program]),
        logFile: join(dir, `${name}.log`),
      });
    await using up = await start('server', server, ECHO);
    await up.untilLog('up');
    await using asking = await start('client', client, ASK(server.address));
    const lastSays = (word: string) => () => {
      const lines = asking.log().trim().split('\n').slice(-3);
      return lines.length === 3 && lines.every((line) => line === word);
    };
    await until('an answer', lastSays('here'));
    // From here, too, by the bridge.
    expect(await (await fetch(`http://${server.address}:8000`)).text()).toBe('here');
    const faults = [
      () => server.cut(),
      () => server.dropIn(),
      () => server.dropOut(),
      () => server.part([client]),
      () => client.partOneWay([server]),
    ];
    for (const fault of faults) {
      await fault();
      await until('silence', lastSays('silence'));
      await server.heal();
      await client.heal();
      await until('an answer again', lastSays('here'));
    }
  } finally {
    await lab.close();
    removeTempFolder(dir);
  }
});

test.skipIf(probe !== undefined)('nothing is left of a lab whose process was killed', async () => {
  const program = `
    import { NetLab } from '${join(packageRoot(), 'dist/test-support/net-lab.js')}';
    const lab = await NetLab.open();
    await lab.addHost('one');
    console.log(JSON.stringify(lab));
    process.kill(process.pid, 'SIGKILL');`;
  const { stdout, signal } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' });
  expect(signal).toBe('SIGKILL');
  const { id } = JSON.parse(stdout) as { id: string };
  const left = () => {
    const links = spawnSync('ip', ['link'], { encoding: 'utf8' }).stdout;
    const namespaces = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' }).stdout;
    return `${links}${namespaces}`.includes(`mr${id}`);
  };
  await until('the guardian to have cleaned up', () => !left());
});
