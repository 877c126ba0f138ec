-- What operators do with plugins, and what they are answered. Times are microseconds since 1970.

-- Where a version came from, and what it said of itself (JSON), so that versions can be compared without being run.
ALTER TABLE _lantern_plugin ADD COLUMN component_bytes INTEGER;
ALTER TABLE _lantern_plugin ADD COLUMN description TEXT;
ALTER TABLE _lantern_plugin ADD COLUMN came_from TEXT;
-- When it last began to run; NULL where it never did.
ALTER TABLE _lantern_plugin ADD COLUMN activated_at INTEGER;
-- Why it cannot run, where that is so.
ALTER TABLE _lantern_plugin ADD COLUMN failed TEXT;

-- What is wanted of each plugin. It stands here from its first installation until it is removed.
CREATE TABLE _lantern_installation (
    plugin        TEXT PRIMARY KEY,
    -- The version that runs, or would run if the plugin were not paused; NULL until one was activated.
    active        INTEGER REFERENCES _lantern_plugin (id),
    -- The one before it: what a rollback goes back to.
    previous      INTEGER REFERENCES _lantern_plugin (id),
    -- Why it is paused, in words; NULL while it is not.
    paused        TEXT,
    -- What the operator has set for this plugin (JSON); what is not in it is as for all plugins.
    settings      TEXT NOT NULL DEFAULT '{}',
    changed_at    INTEGER NOT NULL
) STRICT;

-- What was last done with each file of the plugin directory: a file acts when its bytes change, and not again at
-- each start.
CREATE TABLE _lantern_plugin_file (
    file    TEXT PRIMARY KEY,
    digest  TEXT NOT NULL,
    plugin  TEXT NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT;

-- Dead letters that a later version could project.
ALTER TABLE _lantern_dead_letter ADD COLUMN resolved_by INTEGER REFERENCES _lantern_plugin (id);
CREATE INDEX _lantern_dead_letter_state ON _lantern_dead_letter (state, origin, id);

-- Tables that are being filled anew beside those in use. The rebuild's own checkpoints, ledger and dead letters
-- stand under the plugin name `PLUGIN#ID` until it ends.
CREATE TABLE _lantern_rebuild (
    id             INTEGER PRIMARY KEY,
    plugin         TEXT NOT NULL,
    plugin_version INTEGER NOT NULL REFERENCES _lantern_plugin (id),
    -- running, failed, cancelled or done
    state          TEXT NOT NULL,
    -- What was asked for (JSON).
    options        TEXT NOT NULL,
    started_at     INTEGER NOT NULL,
    ended_at       INTEGER,
    -- Why it failed.
    reason         TEXT
) STRICT;

-- Who may change something. The token itself is not here: only its SHA-256, which is enough for 256 random bits.
CREATE TABLE _lantern_token (
    id           INTEGER PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE,
    -- viewer or operator
    role         TEXT NOT NULL,
    sha256       BLOB NOT NULL UNIQUE,
    created_at   INTEGER NOT NULL,
    created_by   TEXT NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER
) STRICT;

-- Who did what, when, and how it ended. Never changed, only added to.
CREATE TABLE _lantern_audit (
    id      INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    -- A token's name, or the part of the host that acted by itself.
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    plugin  TEXT,
    digest  TEXT,
    -- done, refused or failed
    outcome TEXT NOT NULL,
    -- For people: what changed, or why not.
    detail  TEXT NOT NULL
) STRICT;
CREATE INDEX _lantern_audit_plugin ON _lantern_audit (plugin, id);
