//! The stored summaries of segments.

use crate::sql::{Connection, params};
use rusqlite::types::ToSqlOutput;

use super::SegmentSet;
use super::summary::{FacetCounts, SequenceRun, Summary};

/// Replaces the summary of a segment. A segment without rows has none.
pub(super) fn replace(
    connection: &Connection,
    set: &SegmentSet,
    segment: i64,
    summary: &Summary,
) -> Result<(), crate::sql::Error> {
    remove(connection, set.id, segment)?;
    if summary.rows == 0 {
        return Ok(());
    }
    let (time_min, time_max) = summary.times.unzip();
    connection
        .prepare_cached(
            "INSERT INTO _lantern_segment (segments, segment, rows, untimed, time_min, time_max)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            set.id,
            segment,
            summary.rows,
            summary.untimed,
            time_min,
            time_max
        ])?;
    let mut origins = connection.prepare_cached(
        "INSERT INTO _lantern_segment_origin (segments, origin, block, segment, first_sequence, last_sequence, rows)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for ((origin, block), run) in &summary.origins {
        origins.execute([set.id, *origin, *block, segment, run.first, run.last, run.rows])?;
    }
    let mut counts = connection.prepare_cached(
        "INSERT INTO _lantern_segment_facet (segments, segment, \"column\", value, rows) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for (column, facet) in set.facets.iter().zip(&summary.facets) {
        for (value, rows) in facet.iter() {
            let value = ToSqlOutput::Borrowed(value);
            counts.execute(params![set.id, segment, column, value, rows])?;
        }
    }
    Ok(())
}

/// Removes the summary of a segment.
pub(super) fn remove(connection: &Connection, set: i64, segment: i64) -> Result<(), crate::sql::Error> {
    for table in ["segment", "segment_origin", "segment_facet"] {
        connection
            .prepare_cached(&format!(
                "DELETE FROM _lantern_{table} WHERE segments = ?1 AND segment = ?2"
            ))?
            .execute([set, segment])?;
    }
    Ok(())
}

/// The summary of a segment.
pub(super) fn read(
    connection: &Connection,
    set: &SegmentSet,
    segment: i64,
) -> Result<Summary, crate::sql::Error> {
    let mut summary = Summary::new(set);
    let mut totals = connection.prepare_cached(
        "SELECT rows, untimed, time_min, time_max FROM _lantern_segment WHERE segments = ?1 AND segment = ?2",
    )?;
    let mut found = totals.query([set.id, segment])?;
    if let Some(row) = found.next()? {
        (summary.rows, summary.untimed) = (row.get(0)?, row.get(1)?);
        summary.times = row.get::<_, Option<i64>>(2)?.zip(row.get(3)?);
    }
    let mut runs = connection.prepare_cached(
        "SELECT origin, block, first_sequence, last_sequence, rows FROM _lantern_segment_origin
         WHERE segments = ?1 AND segment = ?2",
    )?;
    let mut found = runs.query([set.id, segment])?;
    while let Some(row) = found.next()? {
        let run = SequenceRun {
            first: row.get(2)?,
            last: row.get(3)?,
            rows: row.get(4)?,
        };
        summary.origins.insert((row.get(0)?, row.get(1)?), run);
    }
    let mut counts = connection.prepare_cached(
        "SELECT \"column\", value, rows FROM _lantern_segment_facet WHERE segments = ?1 AND segment = ?2",
    )?;
    let mut found = counts.query([set.id, segment])?;
    while let Some(row) = found.next()? {
        let column: String = row.get(0)?;
        let mut facets = set.facets.iter().zip(&mut summary.facets);
        match facets.find(|(name, _)| **name == column) {
            Some((_, facet)) => facet.add_stored(row.get_ref(1)?, row.get(2)?),
            // A column that is not counted: the summary cannot match.
            None => summary.facets.push(FacetCounts::default()),
        }
    }
    Ok(summary)
}
