// What the host answers, by the names that the page has for it. The shapes are generated from the API's document
// (`npm run types`, docs/openapi.json), so they cannot differ from what the host says of itself. Times are RFC 3339 text.
//
// A whole number is `number` here, although the API's have 64 bits and `parseJson` makes a bigint of one beyond 2^53:
// counts and sequences do not come that far, and values of rows, which do, are asked for as text (`calls.ts`).
import type { components } from './schema';

type Schemas = components['schemas'];

export type Info = Schemas['Info'];
export type WhoAmI = Schemas['WhoAmI'];
export type Check = Schemas['Check'];
export type Readiness = Schemas['Readiness'];
export type Projection = Schemas['Projection'];
export type Sample = Schemas['Sample'];
export type History = Schemas['History'];

export type ColumnType = Schemas['ColumnType'];
export type Column = Schemas['Column'];
export type Table = Schemas['Table'];
export type Origin = Schemas['RowOrigin'];
/** A row: its columns by name, and `_row` and `_origin`, which no column can be called. */
export type Row = Schemas['Row'];
export type RowDetail = Schemas['RowDetail'];
export type Message = Schemas['Message'];
export type Count = Schemas['Count'];
export type Facets = Schemas['Facets'];
export type Facet = Schemas['Facet'];
export type Bucket = Schemas['Bucket'];
export type Histogram = Schemas['Histogram'];
export type Series = Schemas['Series'];
export type SeriesAnswer = Schemas['SeriesAnswer'];
export type SqlAnswer = Schemas['SqlAnswer'];

/** A page of any list. */
export interface Page<T> {
  items: T[];
  next_cursor: string | null;
}

export type DeadLetter = Schemas['DeadLetter'];
export type Healed = Schemas['Healed'];
export type Discarded = Schemas['Discarded'];
export type LedgerRange = Schemas['LedgerRange'];
export type AuditEntry = Schemas['AuditEntry'];
export type Gap = Schemas['Gap'];

export type VersionState = Schemas['VersionState'];
/** A plugin in the list of all, and with all that is known of it. */
export type ListedPlugin = Schemas['Plugin'];
export type Plugin = Schemas['PluginDetail'];
export type Version = Schemas['PluginVersionDetail'];
export type Settings = Schemas['Settings'];
export type Effect = Schemas['Effect'];
export type Difference = Schemas['Difference'];
export type Taken = Schemas['Taken'];
export type Refusal = Schemas['Refusal'];
export type CanarySide = Schemas['CanarySide'];
export type CanaryReport = Schemas['CanaryReport'];

/** Why messages could not be read, and which of them are meant. */
export type Reasons = Schemas['DeadLetterReasons'];
export type LetterGroup = Schemas['DeadLetterGroup'];
export type LetterReason = Schemas['DeadLetterReason'];
export type Which = Partial<Schemas['WhichDeadLetters']>;

/** What a version says of itself, and what it runs under. */
export type Described = Schemas['Description'];
export type Description = Schemas['ManifestDescription'];
export type DescribedTable = Schemas['NamedTable'];
