import { randomInt } from 'node:crypto';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';

/**
 * Ports for servers that are started later, by other programs.
 *
 * "Listen on 0, close, use that number" loses races: between the two, any outgoing connection or a
 * second test run may take the port. So ports come from below the ephemeral range, which no
 * connection is given by itself, and each is reserved among all users of this module on the machine
 * by holding the UDP port of the same number. The kernel gives that up when the process ends,
 * however it ends, so no reservation can be stale.
 */
const reserved = new Map<number, Socket>();

const FIRST = 11_000;

/** Reserves `count` different TCP ports on the loopback address until {@link releasePorts} or the end of this process. */
export async function reservePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  const end = Math.min(ephemeralStart(), 32_768);
  for (let tries = 0; ports.length < count; tries++) {
    if (tries > 5_000) throw new Error(`found no ${count} free ports between ${FIRST} and ${end}`);
    const port = randomInt(FIRST, end);
    if (await reserve(port)) ports.push(port);
  }
  return ports;
}

export async function reservePort(): Promise<number> {
  const [port] = await reservePorts(1);
  return port as number;
}

export function releasePorts(ports: Iterable<number>): void {
  for (const port of ports) {
    reserved.get(port)?.close();
    reserved.delete(port);
  }
}

async function reserve(port: number): Promise<boolean> {
  if (reserved.has(port)) return false;
  const socket = createSocket('udp4');
  socket.unref();
  try {
    socket.bind({ port, address: '127.0.0.1', exclusive: true });
    await once(socket, 'listening');
  } catch (error) {
    socket.close();
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return false;
    throw error;
  }
  // Somebody who knows nothing of reservations may listen there.
  if (await canListen(port)) {
    reserved.set(port, socket);
    return true;
  }
  socket.close();
  return false;
}

async function canListen(port: number): Promise<boolean> {
  const server = createServer();
  try {
    // All addresses: a server on any of them counts.
    server.listen({ port, exclusive: true });
    await once(server, 'listening');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return false;
    throw error;
  }
  server.close();
  await once(server, 'close');
  return true;
}

function ephemeralStart(): number {
  try {
    return Number(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(/\s+/)[0]);
  } catch {
    return 32_768; // No /proc: what Linux has by default, and below what other systems use.
  }
}
