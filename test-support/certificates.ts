import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface CertificateFiles {
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
}

/** A certificate authority made by openssl, good for a day, whose files lie in `dir`. */
export class TestAuthority {
  private constructor(
    private readonly dir: string,
    private readonly name: string,
  ) {}

  static async create(dir: string, name = 'ca'): Promise<TestAuthority> {
    const authority = new TestAuthority(dir, name);
    await openssl(
      ['req', '-x509', ...NEW_KEY, '-days', '1', '-subj', `/CN=${name}`],
      ['-keyout', authority.file('key')],
      ['-out', authority.file('crt')],
    );
    return authority;
  }

  /** A certificate that this authority has signed. */
  async issue(name: string): Promise<CertificateFiles> {
    const [keyFile, requestFile, certFile] = ['key', 'csr', 'crt'].map((ending) =>
      join(this.dir, `${this.name}-${name}.${ending}`),
    ) as [string, string, string];
    await openssl(['req', ...NEW_KEY, '-subj', `/CN=${name}`], ['-keyout', keyFile], ['-out', requestFile]);
    await openssl(
      ['x509', '-req', '-days', '1', '-in', requestFile, '-out', certFile],
      ['-CA', this.file('crt'), '-CAkey', this.file('key'), '-CAcreateserial'],
    );
    return { caFile: this.file('crt'), certFile, keyFile };
  }

  private file(ending: string): string {
    return join(this.dir, `${this.name}.${ending}`);
  }
}

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

async function openssl(...args: readonly (readonly string[])[]): Promise<void> {
  await run('openssl', args.flat());
}

export async function readCertificates({ caFile, certFile, keyFile }: CertificateFiles) {
  const [ca, cert, key] = await Promise.all([caFile, certFile, keyFile].map((file) => readFile(file, 'utf8')));
  return { ca: ca as string, cert: cert as string, key: key as string };
}
