// A broker for a test, and the part of the NATS protocol that publishing requires.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { natsServer } from './places';

/** A currently free port. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      const port = typeof address === 'object' && address ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}

/** A broker that a test can kill and restart; its streams are preserved. */
export class Broker {
  #child: ChildProcess | undefined;
  readonly #folder = mkdtempSync(join(tmpdir(), 'lantern-broker-'));

  private constructor(readonly port: number) {}

  static async start(): Promise<Broker> {
    const broker = new Broker(await freePort());
    await broker.restart();
    return broker;
  }

  get url(): string {
    return `nats://127.0.0.1:${this.port}`;
  }

  async restart(): Promise<void> {
    const args = ['-a', '127.0.0.1', '-p', String(this.port), '-js', '-sd', this.#folder];
    this.#child = spawn(natsServer(), args, { stdio: 'ignore' });
    await waitUntilReady(this.port);
  }

  async kill(): Promise<void> {
    await stopProcess(this.#child);
    this.#child = undefined;
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Terminates a child process and waits until it has exited. */
export async function stopProcess(child: ChildProcess | undefined): Promise<void> {
  if (!child || child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await exited;
  clearTimeout(timer);
}

async function waitUntilReady(port: number): Promise<void> {
  const until = Date.now() + 10_000;
  while (Date.now() < until) {
    const isReady = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1');
      socket.once('data', () => resolve(socket.destroy() !== undefined));
      socket.once('error', () => resolve(false));
    });
    if (isReady) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`no broker on port ${port} within 10 s`);
}

export interface Outgoing {
  subject: string;
  payload: unknown;
  headers?: Record<string, string>;
}

/** Publishes in order, and resolves when the broker has received all. Text and bytes are sent unchanged, other values as JSON. */
export function publish(url: string, messages: readonly Outgoing[]): Promise<void> {
  const { hostname, port, username, password } = new URL(url);
  const login = username ? { user: decodeURIComponent(username), pass: decodeURIComponent(password) } : {};
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname);
    socket.setTimeout(10_000, () => socket.destroy(new Error('the broker does not answer')));
    socket.once('error', reject);
    socket.on('data', (data) => {
      const text = data.toString();
      if (text.includes('-ERR')) reject(new Error(text));
      if (text.includes('PONG')) {
        socket.end();
        resolve();
      }
    });
    const hello = { verbose: false, pedantic: false, headers: true, ...login };
    socket.write(`CONNECT ${JSON.stringify(hello)}\r\n`);
    for (const message of messages) socket.write(encode(message));
    socket.write('PING\r\n');
  });
}

function encode({ subject, payload, headers }: Outgoing): Buffer {
  const body =
    payload instanceof Uint8Array
      ? payload
      : Buffer.from(typeof payload === 'string' ? payload : JSON.stringify(payload));
  if (!headers) {
    return Buffer.concat([Buffer.from(`PUB ${subject} ${body.length}\r\n`), body, Buffer.from('\r\n')]);
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const head = Buffer.from(`NATS/1.0\r\n${lines.join('')}\r\n`);
  const line = `HPUB ${subject} ${head.length} ${head.length + body.length}\r\n`;
  return Buffer.concat([Buffer.from(line), head, body, Buffer.from('\r\n')]);
}
