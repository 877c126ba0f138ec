// The responses of the host, under the dashboard's names. The shapes are generated from the OpenAPI document
// (`npm run types`, docs/openapi.json), so they match the host. Times are RFC 3339 text.
//
// An integer is `number` here, although the API's integers have 64 bits and `parseJson` returns a bigint beyond 2^53:
// counts and sequences stay below that, and row values are requested as text (`calls.ts`).
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
/** A row: its columns by name, and its identity in `_id`, `_origin`, `_sequence` and `_row`. */
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
export type RetryResult = Schemas['RetryTotals'];
export type DiscardResult = Schemas['Discarded'];
export type LedgerRange = Schemas['LedgerRange'];
export type AuditEntry = Schemas['AuditEntry'];
export type Gap = Schemas['Gap'];

export type VersionState = Schemas['VersionState'];
/** A plugin in the list, and with all details. */
export type ListedPlugin = Schemas['Plugin'];
export type Plugin = Schemas['PluginDetail'];
export type Version = Schemas['PluginVersionDetail'];
export type Settings = Schemas['Settings'];
export type Effect = Schemas['Effect'];
export type Difference = Schemas['Difference'];
export type Installed = Schemas['ChangedVersion'];
export type LoadFailure = Schemas['LoadFailure'];
export type CanaryVersion = Schemas['CanaryVersion'];
export type CanaryReport = Schemas['CanaryReport'];

/** Reasons of dead letters, and the filter that selects dead letters. */
export type DeadLetterReasons = Schemas['DeadLetterReasons'];
export type DeadLetterGroup = Schemas['DeadLetterGroup'];
export type DeadLetterReason = Schemas['DeadLetterReason'];
export type DeadLetterFilter = Partial<Schemas['DeadLetterSelection']>;

/** The manifest of a version, and its limits. */
export type DescriptionAnswer = Schemas['Description'];
export type Description = Schemas['ManifestDescription'];
export type TableDescription = Schemas['NamedTable'];
