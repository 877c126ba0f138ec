// The health of the host as the overview shows it, separate from its rendering.
import type { LoadFailure, Projection, Readiness, Sample, Table } from '../api/types';
import { plural } from '../format/numbers';

export interface Health {
  tone: 'good' | 'warn' | 'bad';
  sentence: string;
  reasons: string[];
  /** Open dead letters. */
  deadLetters: number;
  /** Messages lost before the host read them. */
  missing: number;
}

/** The health in one sentence, with the reasons of each problem. */
export function assessHealth(
  readiness: Readiness | undefined,
  projections: readonly Projection[],
  loadFailures: readonly LoadFailure[],
): Health {
  const deadLetters = projections.reduce((sum, one) => sum + one.dead_letters, 0);
  const missing = projections.reduce((sum, one) => sum + one.missing, 0);
  const failing = readiness?.checks.filter((check) => !check.ok) ?? [];
  const reasons = failing.map((check) => `${check.name.replace(/^projection:/, '')}: ${check.detail}`);
  for (const one of loadFailures) {
    const reason = `${one.subject}: ${one.reason}`;
    if (!reasons.some((known) => known.includes(one.reason))) reasons.push(reason);
  }
  if (failing.length > 0) {
    const names = failing.map((check) => check.name.replace(/^projection:/, ''));
    const subjects = names.length > 3 ? `${names.slice(0, 2).join(', ')} and ${names.length - 2} others` : list(names);
    return {
      tone: 'bad',
      sentence: `Problem: ${subjects} ${names.length === 1 ? 'is' : 'are'} not ready.`,
      reasons,
      deadLetters,
      missing,
    };
  }
  if (projections.length === 0) {
    return {
      tone: loadFailures.length ? 'warn' : 'good',
      sentence: 'Healthy: no source is running yet.',
      reasons,
      deadLetters,
      missing,
    };
  }
  if (loadFailures.length > 0) {
    const sentence = `All sources are healthy, but ${plural(loadFailures.length, 'plugin file')} failed to load.`;
    return { tone: 'warn', sentence, reasons, deadLetters, missing };
  }
  const paused = projections.filter((one) => one.state === 'paused' || one.state === 'stopped').length;
  const waiting = projections.filter((one) => one.state === 'waiting-for-stream').length;
  const running = projections.length - paused - waiting;
  const notes = [
    paused ? `${plural(paused, 'source')} paused` : '',
    waiting ? `${plural(waiting, 'source')} waiting for ${waiting === 1 ? 'its stream' : 'their streams'}` : '',
  ].filter(Boolean);
  const lag = projections.reduce((sum, one) => sum + (one.lag ?? 0), 0);
  const lagNote = lag > 1_000 ? `, lag ${plural(lag, 'message')}` : '';
  const sentence = `Healthy: ${plural(running, 'source')} running${lagNote}${notes.length ? `; ${notes.join(', ')}` : ''}.`;
  return { tone: paused ? 'warn' : 'good', sentence, reasons, deadLetters, missing };
}

function list(names: readonly string[]): string {
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}

/** Messages per second between consecutive samples. A restart resets the counter to zero. */
export function ratesOf(samples: readonly Sample[]): number[] {
  const rates: number[] = [];
  for (let index = 1; index < samples.length; index += 1) {
    const [before, after] = [samples[index - 1], samples[index]];
    if (!before || !after) continue;
    const seconds = (Date.parse(after.at) - Date.parse(before.at)) / 1_000;
    if (seconds > 0) rates.push(Math.max(0, after.messages - before.messages) / seconds);
  }
  return rates;
}

/** The newest time of these tables. */
export function newestOf(tables: readonly Table[]): string | undefined {
  let newest: string | undefined;
  for (const table of tables) {
    if (table.newest && (newest === undefined || Date.parse(table.newest) > Date.parse(newest))) newest = table.newest;
  }
  return newest;
}
