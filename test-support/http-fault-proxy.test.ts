import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { HttpFaultProxy } from './http-fault-proxy.ts';

const BODY = 'x'.repeat(10_000);
let asked = 0;
const server = createServer((request, response) => {
  asked++;
  response.setHeader('x-host', request.headers.host ?? '');
  if (request.method === 'PUT') request.pipe(response);
  else response.end(BODY);
});
let target = '';

beforeAll(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  target = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.close();
  server.closeAllConnections();
});

test('without faults requests pass whole, headers and all', async () => {
  await using proxy = await HttpFaultProxy.start(target);
  const answer = await fetch(`${proxy.endpoint}/a?b=c`, { method: 'PUT', body: 'sent' });
  expect(await answer.text()).toBe('sent');
  expect(answer.headers.get('x-host')).toBe(new URL(proxy.endpoint).host);
});

test('a status is answered without asking the server, for the chosen requests alone', async () => {
  await using proxy = await HttpFaultProxy.start(target);
  proxy.fault = ({ url }) => (url === '/bad' ? { kind: 'status', status: 503 } : undefined);
  const before = asked;
  expect((await fetch(`${proxy.endpoint}/bad`, { method: 'PUT', body: 'sent' })).status).toBe(503);
  expect(asked).toBe(before);
  expect((await fetch(`${proxy.endpoint}/good`)).status).toBe(200);
});

test('a truncated answer announces its whole length and breaks off', async () => {
  await using proxy = await HttpFaultProxy.start(target);
  proxy.fault = () => ({ kind: 'truncate', afterBytes: 100 });
  const answer = await fetch(proxy.endpoint);
  await expect(answer.text()).rejects.toThrow();
});

test('a delayed request is late and whole', async () => {
  await using proxy = await HttpFaultProxy.start(target);
  proxy.fault = () => ({ kind: 'delay', delayMs: 40 });
  const sentMs = performance.now();
  expect(await (await fetch(proxy.endpoint)).text()).toBe(BODY);
  expect(performance.now() - sentMs).toBeGreaterThanOrEqual(39);
});

test('a server that is gone closes connections and does not end the proxy', async () => {
  await using proxy = await HttpFaultProxy.start('http://127.0.0.1:1');
  await expect(fetch(proxy.endpoint)).rejects.toThrow();
  await expect(fetch(proxy.endpoint)).rejects.toThrow();
});
