import { join } from 'node:path';
import type { Master } from '../../test-support/local-cluster.ts';
import { ManagedProcess } from '../../test-support/processes.ts';

const PROGRAM = `
const [port, host] = process.argv.slice(1);
require('node:net').createServer((socket) => {
  socket.on('error', () => {});
  socket.on('data', () => socket.write('HTTP/1.1 200 OK\\r\\ncontent-length: 3\\r\\n\\r\\nno\\n'));
}).listen(Number(port), host, () => console.log('listening'));
`;

/** A program that has nothing to do with millrace and takes the port of a dead master, on its host. */
export async function startStranger(dead: Master, port: number, dir: string): Promise<ManagedProcess> {
  const { place } = dead;
  const stranger = await ManagedProcess.start({
    name: 'stranger',
    ...place.command(process.execPath, ['-e', PROGRAM, String(port), place.address]),
    logFile: join(dir, 'logs', 'stranger.log'),
  });
  await stranger.untilLog('listening');
  return stranger;
}
