-- What paused a plugin, which decides what resumes it: an operator, or the watcher of the plugin directory, which resumes
-- only its own pauses. NULL while the plugin is not paused. Earlier versions told the two apart by the text of the reason.
ALTER TABLE _lantern_installation ADD COLUMN paused_by TEXT
    CHECK (paused_by IN ('operator', 'plugin-directory'));
UPDATE _lantern_installation
SET paused_by = CASE WHEN paused LIKE 'its file %' THEN 'plugin-directory' ELSE 'operator' END
WHERE paused IS NOT NULL;
