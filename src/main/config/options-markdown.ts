import { environmentName } from './load-config.ts';
import { OPTIONS, type Option } from './options.ts';

/** The text of docs/configuration.md, made from the list of options; a test keeps the file the same. */
export function optionsMarkdown(): string {
  const rows = (Object.values(OPTIONS) as Option<unknown>[]).map((option) => {
    const shown = option.defaultText === undefined ? '' : `\`${option.defaultText}\``;
    return `| \`${option.key}\` | ${shown} | ${option.description}${option.secret ? ' Never shown anywhere.' : ''} |`;
  });
  return `# Configuration

Read once at the start: argument (\`-D key=value\`), then environment, then file
(\`--config FILE\`, else the one that \`MILLRACE_CONFIG_FILE\` names), then default. The
environment variable of a key is \`MILLRACE_CONF_\` and the key in capitals with underscores:
\`rest.port\` is \`${environmentName('rest.port')}\`. Unknown keys and contradictions are errors, all listed at once.
Durations are written \`500 ms\`, \`2 s\`, \`10 min\`; sizes \`64 kb\`, \`100 MiB\` (binary).

| key | default | meaning |
|---|---|---|
${rows.join('\n')}
`;
}
