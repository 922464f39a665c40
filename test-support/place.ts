/** Where a process runs and under which address others reach it: this machine, or a host of a net lab. */
export interface Place {
  readonly name: string;
  readonly address: string;
  /** The command that runs another one there. */
  command(command: string, args: readonly string[]): { readonly command: string; readonly args: readonly string[] };
}

export const LOOPBACK: Place = {
  name: 'loopback',
  address: '127.0.0.1',
  command: (command, args) => ({ command, args }),
};
