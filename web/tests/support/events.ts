// Generated events in the format of the agents, deterministic for a given end time, for tests and screenshots.
import type { Outgoing } from './nats';

const MACHINES = ['atlas', 'borea', 'cygnus', 'draco', 'eridu', 'fornax'];
const PACKAGES = ['openssl', 'curl', 'linux-image-6.1', 'python3.11', 'git', 'nginx', 'postgresql-15', 'tzdata'];
const USERS = ['mira', 'jonas', 'root', 'deploy', 'aylin'];
const KINDS: [string, string, number][] = [
  ['process_start', 'linux:proc', 30],
  ['process_exit', 'linux:proc', 28],
  ['package_install', 'dpkg', 6],
  ['package_upgrade', 'dpkg', 12],
  ['logon', 'wtmp', 9],
  ['logoff', 'wtmp', 8],
  ['boot', 'linux:kernel', 1],
];

/** A deterministic pseudorandom generator. */
export function numbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const iso = (at: number) => new Date(Math.round(at)).toISOString();

/** `count` observations over the `hours` before `end`. */
export function observations(count: number, end: number, hours = 24, name = ''): Outgoing[] {
  const next = numbers(7);
  const total = KINDS.reduce((sum, [, , weight]) => sum + weight, 0);
  const messages: Outgoing[] = [];
  const open = new Map<string, object[]>();
  for (let index = 0; index < count; index += 1) {
    // More events in the middle of the day, with one burst.
    const place = (index + next()) / count;
    const wave = place + 0.06 * Math.sin(place * Math.PI * 4);
    const at = end - hours * 3_600_000 * (1 - Math.min(Math.max(wave, 0), 0.9999));
    const [kind, source] = kindAt(next() * total);
    const machine = MACHINES[Math.floor(next() ** 1.6 * MACHINES.length)] ?? 'atlas';
    messages.push({
      subject: `obs.${machine}`,
      payload: {
        pc_id: machine,
        at: iso(at),
        kind,
        source,
        event_record_id: `${name}${index}`,
        payload: inPairs(open, `${machine} ${kind}`, about(kind, next, index)),
      },
    });
  }
  return messages;
}

const ENDS: Record<string, string> = { process_exit: 'process_start', logoff: 'logon' };

/** Gives an end event the payload of an earlier start on the same machine. */
function inPairs(open: Map<string, object[]>, place: string, about: object): object {
  const [machine = '', kind = ''] = place.split(' ');
  const started = open.get(`${machine} ${ENDS[kind] ?? kind}`) ?? [];
  if (ENDS[kind]) return { ...about, ...started.shift() };
  if (Object.values(ENDS).includes(kind)) open.set(place, [...started, about]);
  return about;
}

function kindAt(place: number): [string, string] {
  let left = place;
  for (const [kind, source, weight] of KINDS) {
    left -= weight;
    if (left < 0) return [kind, source];
  }
  return ['boot', 'linux:kernel'];
}

function about(kind: string, next: () => number, index: number): object {
  const one = (list: readonly string[]) => list[Math.floor(next() * list.length)];
  if (kind.startsWith('package'))
    return { package: one(PACKAGES), version: `${1 + (index % 4)}.${index % 17}.${index % 9}` };
  if (kind.startsWith('log'))
    return { user: one(USERS), line: `pts/${index}`, host: `10.0.${index % 7}.${index % 200}` };
  if (kind === 'boot') return { kernel: '6.1.0-28-amd64' };
  return {
    pid: 1000 + index,
    command: one(['sshd', 'cron', 'postgres', 'nginx', 'bash', 'cargo']),
    exit_code: index % 11 ? 0 : 1,
  };
}

/** Performance samples, one per machine and minute. */
export function performance(minutes: number, end: number): Outgoing[] {
  const next = numbers(11);
  const messages: Outgoing[] = [];
  for (let minute = minutes; minute > 0; minute -= 1) {
    for (const [place, machine] of MACHINES.slice(0, 3).entries()) {
      const at = end - minute * 60_000;
      const wave = 0.5 + 0.4 * Math.sin((minutes - minute) / (9 + place * 4) + place);
      messages.push({
        subject: `host_perf.${machine}`,
        payload: {
          pc_id: machine,
          at: iso(at),
          cpu_pct: Math.round(1_000 * (8 + 70 * wave * (0.8 + 0.2 * next()))) / 1_000,
          cpu_count: 8,
          mem_used_bytes: Math.round(2 ** 33 * (0.4 + 0.3 * wave)),
          mem_total_bytes: 2 ** 34,
          swap_used_bytes: 0,
          swap_total_bytes: 2 ** 31,
          disk_read_bytes_per_sec: Math.round(4e6 * next()),
          disk_written_bytes_per_sec: Math.round(2e6 * wave * next()),
          net_rx_bytes_per_sec: Math.round(9e5 * wave),
          net_tx_bytes_per_sec: Math.round(3e5 * next()),
        },
      });
    }
  }
  return messages;
}

/** Executions with start and end; one of six is still running. */
export function executions(count: number, end: number): Outgoing[] {
  const next = numbers(5);
  const messages: Outgoing[] = [];
  for (let index = 0; index < count; index += 1) {
    const machine = MACHINES[index % MACHINES.length] ?? 'atlas';
    const started = end - 20 * 3_600_000 * (1 - index / count);
    const ids = { result_id: `r-${index}`, request_id: `q-${index}`, pc_id: machine };
    const job = ['backup', 'inventory', 'patch'][index % 3];
    messages.push({
      subject: `events.started.${machine}`,
      payload: { ...ids, exec_id: `e-${index % 4}`, started_at: iso(started), manifest_id: job, version: '3.2.0' },
    });
    if (index % 6 === 5) continue;
    const finished = iso(Math.min(started + 60_000 + 3_000_000 * next(), end - 1_000));
    messages.push({
      subject: `results.${machine}`,
      payload: {
        ...ids,
        exit_code: index % 7 === 3 ? 2 : 0,
        stdout: 'ok\n',
        stderr: '',
        started_at: iso(started),
        finished_at: finished,
        manifest_id: job,
      },
    });
  }
  return messages;
}

/** Audit events of a management system. */
export function audits(count: number, end: number): Outgoing[] {
  const actions = ['deploy', 'approve', 'revoke', 'edit'];
  return Array.from({ length: count }, (_, index) => ({
    subject: `audit.${actions[index % 4]}`,
    payload: {
      actor: USERS[index % USERS.length],
      action: actions[index % 4],
      target: `${MACHINES[index % 6]}/agent`,
      payload: { ticket: 4_000 + index },
      occurred_at: iso(end - (count - index) * 900_000),
    },
  }));
}
