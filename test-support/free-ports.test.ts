import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { expect, test } from 'vitest';
import { releasePorts, reservePort, reservePorts } from './free-ports.ts';

test('reserved ports are different, below the ephemeral range, and free for a server', async () => {
  const ports = await reservePorts(20);
  expect(new Set(ports).size).toBe(20);
  for (const port of ports) {
    expect(port).toBeLessThan(32_768);
    const server = createServer().listen(port, '127.0.0.1');
    await once(server, 'listening');
    server.close();
  }
  releasePorts(ports);
});

test('a reservation is seen by every process on the machine until it is released', async () => {
  const port = await reservePort();
  // What `reservePorts` of any other process does first.
  expect(await canBindUdp(port)).toBe(false);
  releasePorts([port]);
  await expect.poll(() => canBindUdp(port)).toBe(true);
});

async function canBindUdp(port: number): Promise<boolean> {
  const socket = createSocket('udp4');
  try {
    socket.bind({ port, address: '127.0.0.1', exclusive: true });
    await once(socket, 'listening');
    return true;
  } catch {
    return false; // In use, which is what is asked.
  } finally {
    socket.close();
  }
}
