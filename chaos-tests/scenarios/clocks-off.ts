import { offsetClock } from '../stage/fake-time.ts';
import type { Scenario } from './scenario.ts';

export const clocksOff: Scenario = {
  name: 'clocks-off',
  says: 'The wall clock of a master is an hour fast, that of a worker an hour slow; the leader is killed.',
  needs: ['faketime'],
  seconds: 14,
  clocksDiffer: true,
  env: (role, index) => (index === 0 ? offsetClock(role === 'jobmanager' ? '+3600s' : '-3600s') : {}),
  story: async (stage) => {
    for (let i = 0; i < 2; i++) {
      const leader = await stage.leader();
      await stage.fault('leader killed, clocks an hour off', () => stage.kill(leader));
      stage.replaceLater(500, leader);
      await stage.checkpoints(2);
    }
  },
};
