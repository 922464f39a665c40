import { register } from 'node:module';
import { MUTANTS } from './mutants.ts';

/**
 * `node --import mutant-hook.js …` with `MUTANT=<name>`: plants that bug while the module is loaded. What is
 * on disk stays as it is.
 */
const { MUTANT: name } = process.env;
const mutant = MUTANTS.find((one) => one.name === name);
if (mutant === undefined) throw new Error(`MUTANT=${name} names no mutant`);
register('./plant-mutant.js', import.meta.url, { data: mutant });
