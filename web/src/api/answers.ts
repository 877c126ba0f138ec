// Answers that are put together for the page alone: why messages could not be read, and what a version says of itself.
import type { Column, Version } from './types';

/** Dead letters counted by what their reasons have in common. */
export interface Reasons {
  groups: LetterGroup[];
  /** Whether all letters were looked at, or only the newest. */
  exact: boolean;
}

export interface LetterGroup {
  plugin: string;
  source: string;
  class: string;
  letters: number;
  reasons: LetterReason[];
  /** How many rarer reasons are left out. */
  left_out: number;
}

export interface LetterReason {
  /** A star stands for what differs. */
  like: string;
  letters: number;
  last_at: string;
}

/** Which dead letters are meant, where something is done with them. */
export interface Which {
  id?: number;
  plugin?: string;
  source?: string;
  class?: string;
  reason?: string;
}

/** What a version says of itself, and what it runs under. */
export interface Described extends Version {
  description: Description | null;
  imports: string[] | null;
  about: Partial<Record<'description' | 'authors' | 'licenses' | 'source' | 'homepage' | 'revision', string>>;
  limits: Record<string, string | number>;
}

export interface Description {
  doc: string;
  sources: { name: string; stream: string | null; subjects: string[]; wants_headers: boolean }[];
  tables: DescribedTable[];
  writes: { table: string; columns: string[]; on_conflict: string }[];
}

export interface DescribedTable {
  name: string;
  doc: string;
  columns: Column[];
  primary_key: string[];
  indexes: { columns: string[]; unique: boolean }[];
  retention_days: number | null;
  hints: Record<string, string>;
}
