// The paths of the programs under test. `cargo xtask test` sets them; the default is below target/.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));

function resolvePath(variable: string, otherwise: string): string {
  const path = process.env[variable] ?? `${root}${otherwise}`;
  if (!existsSync(path))
    throw new Error(`${path} does not exist: run \`cargo xtask test --only browser\`, or set ${variable}`);
  return path;
}

export const lantern = () => resolvePath('LANTERN_BINARY', 'target/debug/lantern');
export const natsServer = () => resolvePath('LANTERN_NATS_SERVER', 'target/tools/nats-server');
export const plugins = () => resolvePath('LANTERN_PLUGINS', 'target/plugins');
/** A test plugin with many versions. */
export const evolving = () => resolvePath('LANTERN_EVOLVING', 'target/tools/evolving.wasm');
/** A plugin with a view. */
export const syslog = () => resolvePath('LANTERN_SYSLOG', 'target/tools/syslog.wasm');
