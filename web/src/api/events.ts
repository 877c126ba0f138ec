// Server-sent events over `fetch`, because the browser's `EventSource` cannot send a token. After a broken connection it
// continues with the event after the last one received.
import { isAbort, Problem, request } from './client';

export interface ServerEvent {
  name: string;
  id: string | undefined;
  data: string;
}

export type Connection = 'connecting' | 'open' | 'reconnecting';

export interface Subscription {
  path: string;
  /** Id of the last event already processed. */
  after?: string | undefined;
  signal: AbortSignal;
  onEvent: (event: ServerEvent) => void;
  onState: (state: Connection, error?: Error) => void;
}

/** Splits a text stream into events. Chunks may end anywhere. */
export class EventParser {
  #buffer = '';
  #name = '';
  #data: string[] = [];
  #id: string | undefined;

  push(chunk: string): ServerEvent[] {
    const lines = (this.#buffer + chunk).split('\n');
    this.#buffer = lines.pop() ?? '';
    const events: ServerEvent[] = [];
    for (const line of lines) {
      const event = this.#parseLine(line.endsWith('\r') ? line.slice(0, -1) : line);
      if (event) events.push(event);
    }
    return events;
  }

  #parseLine(line: string): ServerEvent | undefined {
    if (line === '') {
      const event = { name: this.#name || 'message', id: this.#id, data: this.#data.join('\n') };
      const complete = this.#data.length > 0;
      this.#name = '';
      this.#data = [];
      return complete ? event : undefined;
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

/** Receives events until the signal is aborted, or the host rejects the request permanently. */
export async function subscribe(subscription: Subscription): Promise<void> {
  let after = subscription.after;
  let failures = 0;
  while (!subscription.signal.aborted) {
    subscription.onState('connecting');
    try {
      const response = await request(subscription.path, {
        headers: { accept: 'text/event-stream', ...(after === undefined ? {} : { 'last-event-id': after }) },
        signal: subscription.signal,
      });
      subscription.onState('open');
      failures = 0;
      await readEvents(response, (event) => {
        after = event.id ?? after;
        subscription.onEvent(event);
      });
      subscription.onState('reconnecting');
    } catch (error) {
      if (isAbort(error) || subscription.signal.aborted) return;
      if (error instanceof Problem && error.status < 500 && error.status !== 429) throw error;
      subscription.onState('reconnecting', error instanceof Error ? error : undefined);
    }
    failures += 1;
    await delay(Math.min(500 * 2 ** failures, 10_000), subscription.signal);
  }
}

async function readEvents(response: Response, onEvent: (event: ServerEvent) => void): Promise<void> {
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    for (const event of parser.push(value)) onEvent(event);
  }
}

function delay(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
