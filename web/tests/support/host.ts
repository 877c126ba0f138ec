// A real host for a test, with its own port and an empty database.
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Outgoing, publish, stopProcess } from './nats';
import { lantern, natsServer, plugins } from './places';

export interface HostOptions {
  /** Stock plugins to install; all of them by default. */
  plugins?: readonly string[];
  /** Address of a running broker. By default, the host starts its embedded one. */
  nats?: string;
  env?: Record<string, string>;
  /** Listen address. */
  listen?: string;
}

export class Host {
  #child: ChildProcess | undefined;
  #log = '';
  address = '';

  private constructor(
    readonly folder: string,
    readonly options: HostOptions,
  ) {}

  static async start(options: HostOptions = {}): Promise<Host> {
    const host = new Host(mkdtempSync(join(tmpdir(), 'lantern-host-')), options);
    mkdirSync(host.pluginFolder);
    const names = options.plugins ?? readdirSync(plugins()).map((file) => file.replace(/\.wasm$/, ''));
    for (const name of names) copyFileSync(join(plugins(), `${name}.wasm`), join(host.pluginFolder, `${name}.wasm`));
    await host.#run();
    await host.#sourcesRunning();
    return host;
  }

  get pluginFolder(): string {
    return join(this.folder, 'plugins');
  }

  /** The operator's token of this machine. */
  get token(): string {
    return readFileSync(join(this.folder, 'data', 'operator.token'), 'utf8').trim();
  }

  get nats(): string {
    return this.options.nats ?? readFileSync(join(this.folder, 'data', 'broker', 'nats.url'), 'utf8').trim();
  }

  publish(messages: readonly Outgoing[]): Promise<void> {
    return publish(this.nats, messages);
  }

  /** Sends an API request with the operator's token. */
  async api<T>(path: string, init: RequestInit = {}): Promise<T> {
    const headers = { authorization: `Bearer ${this.token}`, ...(init.headers as Record<string, string>) };
    const response = await fetch(`${this.address}${path}`, { ...init, headers });
    const text = await response.text();
    if (!response.ok) throw new Error(`${path} failed with status ${response.status}: ${text}`);
    return JSON.parse(text) as T;
  }

  /** Waits until a table has at least this many rows. */
  async rows(table: string, least: number): Promise<void> {
    const until = Date.now() + 30_000;
    let seen = 0;
    while (Date.now() < until) {
      const tables = await this.api<{ name: string; row_count: number }[]>('/api/v1/tables');
      seen = tables.find((one) => one.name === table)?.row_count ?? 0;
      if (seen >= least) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(
      `${table} has ${seen} rows instead of ${least}; the host's log ends with\n${this.#log.slice(-2_000)}`,
    );
  }

  /** Waits until a plugin has processed at least this many messages. */
  async handled(plugin: string, least: number): Promise<void> {
    const until = Date.now() + 60_000;
    let seen = 0;
    while (Date.now() < until) {
      const projections = await this.api<{ plugin: string; messages: number }[]>('/api/v1/projections');
      seen = projections.filter((one) => one.plugin === plugin).reduce((sum, one) => sum + one.messages, 0);
      if (seen >= least) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(
      `${plugin} has handled ${seen} messages instead of ${least}; the host's log ends with\n${this.#log}`,
    );
  }

  async stop(): Promise<void> {
    await stopProcess(this.#child);
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Waits until every source is running. The host is ready before its streams exist; earlier messages would be lost. */
  async #sourcesRunning(): Promise<void> {
    const until = Date.now() + 30_000;
    let states: string[] = [];
    while (Date.now() < until) {
      states = (await this.api<{ state: string }[]>('/api/v1/projections')).map((one) => one.state);
      if (states.every((state) => state === 'running')) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(`the sources are ${states}; the host's log ends with\n${this.#log.slice(-2_000)}`);
  }

  async #run(): Promise<void> {
    const { nats, env, listen } = this.options;
    const args = ['serve', '--data-dir', join(this.folder, 'data'), '--plugin-dir', this.pluginFolder];
    args.push('--listen', listen ?? '127.0.0.1:0', ...(nats ? ['--nats', nats] : []));
    const child = spawn(lantern(), args, {
      env: {
        ...process.env,
        LANTERN__BROKER__EMBEDDED__BINARY: natsServer(),
        LANTERN__STREAMS__CREATE: 'true',
        ...env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    child.stderr.on('data', (data) => {
      this.#log = (this.#log + data).slice(-20_000);
    });
    this.address = await new Promise<string>((resolve, reject) => {
      let output = '';
      const timer = setTimeout(() => reject(new Error(`the host is not ready within 60 s:\n${this.#log}`)), 60_000);
      child.stdout.on('data', (data) => {
        output += data;
        const found = /http:\/\/[\w.:[\]-]+\d/.exec(output);
        if (!found || !output.includes('\n')) return;
        clearTimeout(timer);
        resolve(found[0]);
      });
      child.once('exit', (code) => {
        clearTimeout(timer);
        reject(new Error(`the host ended with ${code}:\n${this.#log}`));
      });
    });
    if (!existsSync(join(this.folder, 'data'))) throw new Error('the host has no data directory');
  }
}
