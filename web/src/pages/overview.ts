// What the overview says, decided apart from how it is drawn.
import type { Projection, Readiness, Refusal, Sample, Table } from '../api/types';
import { plural } from '../format/numbers';

export interface Verdict {
  tone: 'good' | 'warn' | 'bad';
  sentence: string;
  reasons: string[];
  /** Dead letters that are open. */
  letters: number;
  /** Messages that were gone before they were read. */
  missing: number;
}

/** Whether all is well, in one sentence, and if not, why. */
export function verdict(
  readiness: Readiness | undefined,
  projections: readonly Projection[],
  refusals: readonly Refusal[],
): Verdict {
  const letters = projections.reduce((sum, one) => sum + one.dead_letters, 0);
  const missing = projections.reduce((sum, one) => sum + one.missing, 0);
  const failing = readiness?.checks.filter((check) => !check.ok) ?? [];
  const reasons = failing.map((check) => `${check.name.replace(/^projection:/, '')}: ${check.detail}`);
  for (const one of refusals) {
    const reason = `${one.what}: ${one.reason}`;
    if (!reasons.some((known) => known.includes(one.reason))) reasons.push(reason);
  }
  if (failing.length > 0) {
    const names = failing.map((check) => check.name.replace(/^projection:/, ''));
    const who = names.length > 3 ? `${names.slice(0, 2).join(', ')} and ${names.length - 2} others` : list(names);
    return {
      tone: 'bad',
      sentence: `Not all is well: ${who} ${names.length === 1 ? 'needs' : 'need'} attention.`,
      reasons,
      letters,
      missing,
    };
  }
  if (projections.length === 0) {
    return {
      tone: refusals.length ? 'warn' : 'good',
      sentence: 'The host is well. Nothing is read yet.',
      reasons,
      letters,
      missing,
    };
  }
  if (refusals.length > 0) {
    const sentence = `What runs is well; ${plural(refusals.length, 'plugin file')} cannot be loaded.`;
    return { tone: 'warn', sentence, reasons, letters, missing };
  }
  const paused = projections.filter((one) => one.state === 'paused' || one.state === 'stopped').length;
  const waiting = projections.filter((one) => one.state === 'waiting-for-stream').length;
  const running = projections.length - paused - waiting;
  const notes = [
    paused ? `${plural(paused, 'source')} paused` : '',
    waiting
      ? `${plural(waiting, 'source')} ${waiting === 1 ? 'waits' : 'wait'} for ${waiting === 1 ? 'its stream' : 'their streams'}`
      : '',
  ].filter(Boolean);
  const behind = projections.reduce((sum, one) => sum + (one.lag ?? 0), 0);
  const fresh = behind > 1_000 ? `, ${plural(behind, 'message')} behind` : '';
  const sentence = `All is well: ${plural(running, 'source')} running${fresh}${notes.length ? `; ${notes.join(', ')}` : ''}.`;
  return { tone: paused ? 'warn' : 'good', sentence, reasons, letters, missing };
}

function list(names: readonly string[]): string {
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}

/** Messages per second between each sample and the next. A restart begins at zero again. */
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
