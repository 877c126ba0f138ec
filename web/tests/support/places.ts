// Where the programs are that the tests run. `cargo xtask test` says it; without it they are looked for under target/.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));

function found(variable: string, otherwise: string): string {
  const path = process.env[variable] ?? `${root}${otherwise}`;
  if (!existsSync(path))
    throw new Error(`${path} is not there: run \`cargo xtask test --only browser\`, or set ${variable}`);
  return path;
}

export const lantern = () => found('LANTERN_BINARY', 'target/debug/lantern');
export const natsServer = () => found('LANTERN_NATS_SERVER', 'target/tools/nats-server');
export const plugins = () => found('LANTERN_PLUGINS', 'target/plugins');
/** The plugin that comes in many versions. */
export const evolving = () => found('LANTERN_EVOLVING', 'target/tools/evolving.wasm');
/** A plugin that ships a view. */
export const syslog = () => found('LANTERN_SYSLOG', 'target/tools/syslog.wasm');
