import { installConnectors } from '../../api/builtin-connectors.ts';
import { memoryConnectors } from '../../api/testing/memory-connectors.ts';

/** What `import … from 'millrace'` gives to bundles in tests of this room: the API without a cluster. */

installConnectors(memoryConnectors);

export * from '../../api/index.ts';
