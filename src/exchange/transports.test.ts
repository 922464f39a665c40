import { describe } from 'vitest';
import { SystemClock } from '../kernel/clock.ts';
import { silentLogger } from '../kernel/log.ts';
import { PortTransport, ThreadNeighbours } from './port-transport.ts';
import { TcpTransport } from './tcp-transport.ts';
import { transportContract } from './transport.contract.ts';

const deps = { clock: new SystemClock(), log: silentLogger };

describe('TCP', () => transportContract((options) => new TcpTransport(deps, options)));

describe('a MessagePort between slots of one process', () => {
  const neighbours = new ThreadNeighbours();
  transportContract((options) => new PortTransport(neighbours, new TcpTransport(deps, options), '127.0.0.1'));
});

describe('TCP to slots of other processes', () => {
  // Each alone in its process.
  transportContract(
    (options) => new PortTransport(new ThreadNeighbours(), new TcpTransport(deps, options), '127.0.0.1'),
  );
});
