// Server-sent events over `fetch`, because the browser's own `EventSource` cannot send a token. It goes on after the last
// event that came, however often the connection breaks.
import { isAbort, Problem, request } from './client';

export interface ServerEvent {
  name: string;
  id: string | undefined;
  data: string;
}

export type Connection = 'connecting' | 'open' | 'waiting';

export interface Listening {
  path: string;
  /** Where to go on. */
  after?: string | undefined;
  signal: AbortSignal;
  onEvent: (event: ServerEvent) => void;
  onState: (state: Connection, error?: Error) => void;
}

/** Splits a stream of text into events. Pieces may end anywhere. */
export class EventParser {
  #rest = '';
  #name = '';
  #data: string[] = [];
  #id: string | undefined;

  push(piece: string): ServerEvent[] {
    const lines = (this.#rest + piece).split('\n');
    this.#rest = lines.pop() ?? '';
    const events: ServerEvent[] = [];
    for (const line of lines) {
      const event = this.#line(line.endsWith('\r') ? line.slice(0, -1) : line);
      if (event) events.push(event);
    }
    return events;
  }

  #line(line: string): ServerEvent | undefined {
    if (line === '') {
      const event = { name: this.#name || 'message', id: this.#id, data: this.#data.join('\n') };
      const whole = this.#data.length > 0;
      this.#name = '';
      this.#data = [];
      return whole ? event : undefined;
    }
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') this.#name = value;
    else if (field === 'data') this.#data.push(value);
    else if (field === 'id') this.#id = value;
    return undefined;
  }
}

/** Listens until the signal says to stop, or the host says that it never will answer. */
export async function listen(listening: Listening): Promise<void> {
  let after = listening.after;
  let failures = 0;
  while (!listening.signal.aborted) {
    listening.onState('connecting');
    try {
      const response = await request(listening.path, {
        headers: { accept: 'text/event-stream', ...(after === undefined ? {} : { 'last-event-id': after }) },
        signal: listening.signal,
      });
      listening.onState('open');
      failures = 0;
      await read(response, (event) => {
        after = event.id ?? after;
        listening.onEvent(event);
      });
      listening.onState('waiting');
    } catch (error) {
      if (isAbort(error) || listening.signal.aborted) return;
      if (error instanceof Problem && error.status < 500 && error.status !== 429) throw error;
      listening.onState('waiting', error instanceof Error ? error : undefined);
    }
    failures += 1;
    await pause(Math.min(500 * 2 ** failures, 10_000), listening.signal);
  }
}

async function read(response: Response, each: (event: ServerEvent) => void): Promise<void> {
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    for (const event of parser.push(value)) each(event);
  }
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
