import { silentLogger } from '../../kernel/log.ts';
import { RpcServer } from '../rpc-server.ts';
import { echoSpec } from './echo-spec.ts';

/** `echo-server <port>`: serves until it is killed; `echo('pending')` tells how many calls hang. */
let pending = 0;
const hang = () => {
  pending++;
  return new Promise<never>(() => {});
};

const server = await RpcServer.start({ host: '127.0.0.1', port: Number(process.argv[2]), log: silentLogger });
server.serve('echo', echoSpec, {
  echo: async (request) => (request.value === 'pending' ? { value: pending } : request),
  token: async (_request, token) => ({ token }),
  hang,
  hangReading: hang,
  fail: async () => ({}),
});
process.send?.({ port: server.port });
process.on('disconnect', () => process.exit(0));
