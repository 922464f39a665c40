import type { JobGraph } from '../contracts/job-graph.ts';
import { MillraceError } from '../kernel/errors.ts';
import type { ProgramLoader, UserProgram } from './user-program.ts';

/**
 * Programs of this very process (mini cluster, simulator): nothing travels, a slot gets the closures that
 * the script made. Held until removed, as a job may be deployed again after a failure.
 */
export class InlinePrograms implements ProgramLoader {
  private readonly programs = new Map<string, UserProgram>();

  add(programId: string, program: UserProgram): void {
    this.programs.set(programId, program);
  }

  remove(programId: string): void {
    this.programs.delete(programId);
  }

  load(graph: JobGraph): Promise<UserProgram> {
    const { bundle } = graph;
    const program = bundle.kind === 'inline' ? this.programs.get(bundle.programId) : undefined;
    if (program !== undefined) return Promise.resolve(program);
    const what = bundle.kind === 'inline' ? `the program ${bundle.programId}` : 'a program in a bundle';
    return Promise.reject(
      new MillraceError('PROGRAM', `${what} is not in this process`, {
        hint: 'A job with inline functions can only run in the process that made them.',
      }),
    );
  }
}
