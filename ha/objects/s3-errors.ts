import { asError, MillraceError, NotFoundError, UnavailableError } from '../../src/kernel/errors.ts';

interface S3Failure extends Error {
  readonly $metadata?: { readonly httpStatusCode?: number };
  readonly code?: string;
}

const ACCESS = new Set([
  'AccessDenied',
  'InvalidAccessKeyId',
  'SignatureDoesNotMatch',
  'ExpiredToken',
  'InvalidToken',
  'RequestTimeTooSkewed',
  'CredentialsProviderError',
]);
const PLACE = new Set(['PermanentRedirect', 'AuthorizationHeaderMalformed', 'IllegalLocationConstraintException']);

/** Worth another try at once. */
export class CutShortError extends UnavailableError {}

/** Turns what the SDK throws into the port's errors, without keys, tokens or signed requests in them. */
export class S3Errors {
  constructor(
    private readonly description: string,
    /** Never to be shown. */
    private readonly secrets: readonly string[],
  ) {}

  translated(call: string, key: string, thrown: unknown): MillraceError {
    if (thrown instanceof MillraceError) return thrown;
    const error = asError(thrown) as S3Failure;
    const status = error.$metadata?.httpStatusCode;
    const what = `${this.description}: ${call}${key === '' ? '' : ` ${key}`}`;
    const said = this.clean(
      error.message === '' || error.message === 'UnknownError' ? error.name : `${error.name}: ${error.message}`,
    );
    const why = `${said}${status === undefined ? '' : ` (HTTP ${status})`}`;
    const unavailable = (hint: string) =>
      new UnavailableError(`${what} failed: ${why}`, { hint, cause: this.cause(error) });
    if (error.name === 'NoSuchBucket')
      return unavailable('Create the bucket, or correct its name in the configuration.');
    if (error.name === 'NoSuchKey' || (status === 404 && error.name === 'NotFound'))
      return new NotFoundError(`${this.description} has no object ${key}`, { cause: this.cause(error) });
    if (ACCESS.has(error.name) || status === 401 || status === 403)
      return unavailable('Check the access key, the secret key, and what the bucket allows them.');
    if (PLACE.has(error.name) || status === 301) return unavailable('Check the endpoint and the region.');
    if (error.name === 'EntityTooLarge')
      return new MillraceError('TOO_LARGE', `${what} failed: ${why}`, { cause: this.cause(error) });
    if (status !== undefined && status >= 400 && status < 500 && status !== 408 && status !== 409 && status !== 429)
      return new MillraceError('INTERNAL', `${what} was refused: ${why}`, { cause: this.cause(error) });
    return unavailable('Check that the S3 server runs and can be reached.');
  }

  timedOut(call: string, key: string, limitMs: number): UnavailableError {
    return new UnavailableError(`${this.description}: ${call} ${key} got no answer within ${limitMs} ms`, {
      hint: 'Check that the S3 server runs and can be reached.',
    });
  }

  /** The connection broke after the answer had begun. */
  cutShort(key: string, got: number, announced: number): CutShortError {
    return new CutShortError(`${this.description}: reading ${key} broke off after ${got} of ${announced} bytes`, {
      hint: 'Check that the S3 server runs and can be reached.',
    });
  }

  /** The SDK's own error refers to the request and its signature; this keeps name, words and stack. */
  private cause(error: S3Failure): Error {
    const cause = new Error(this.clean(error.message));
    cause.name = error.name;
    cause.stack = this.clean(error.stack ?? '');
    return cause;
  }

  private clean(text: string): string {
    return this.secrets.reduce((cleaned, secret) => cleaned.replaceAll(secret, '***'), text);
  }
}
