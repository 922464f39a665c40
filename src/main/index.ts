/**
 * What `import … from 'millrace'` gives: the API for authors of jobs, the connectors, and, for plain
 * scripts, an executor that runs them in this process.
 */
import { installLocalExecutor } from '../api/execution-context.ts';
import { installConnectors } from '../api/builtin-connectors.ts';
import { BUILTIN_CONNECTORS } from '../connectors/builtin-connectors.ts';
import { installS3 } from '../connectors/s3-provider.ts';
import { localExecutor } from './local-executor.ts';
import { S3_PROVIDER } from './s3-provider.ts';

installConnectors(BUILTIN_CONNECTORS);
installS3(S3_PROVIDER);
installLocalExecutor(localExecutor);

export * from '../api/index.ts';
export * from '../connectors/index.ts';
