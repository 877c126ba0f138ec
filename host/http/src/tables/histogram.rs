//! Counts rows over time.

use axum::Json;
use axum::extract;
use axum::http::Uri;

use super::facets::grouping;
use super::name::TablePath;
use super::selection;
use crate::problem::Problem;
use crate::state::State;
use lantern_api::{Bucket, Histogram};
use lantern_store::reader::{self, Shape};

/// Default number of buckets.
pub const BUCKETS_DEFAULT: u32 = 60;

/// Maximum number of buckets.
pub const BUCKETS_MAX: u32 = 1_000;

pub async fn histogram(
    extract::State(state): extract::State<State>,
    table: TablePath,
    uri: Uri,
) -> Result<Json<Histogram>, Problem> {
    let parameters = selection::read(&uri, &["buckets", "by"])?;
    let count = parameters
        .number("buckets", 1, BUCKETS_MAX)?
        .unwrap_or(BUCKETS_DEFAULT);
    let shape = table.shape(&state.reader).await?;
    require_time(&shape)?;
    let selection = selection::parse(&shape, &parameters)?;
    let by = grouping(&shape, &parameters)?;
    let histogram = state.reader.histogram(&shape, &selection, count, by).await?;
    let Some(buckets) = histogram.buckets else {
        return Ok(Json(Histogram {
            from: None,
            to: None,
            bucket_ms: 0,
            earlier: 0,
            later: 0,
            buckets: Vec::new(),
            exact: true,
        }));
    };
    let bucket = |(number, reader::Bucket { rows, by: values }): (i64, reader::Bucket)| Bucket {
        start: buckets.start(number).to_rfc3339(),
        count: rows,
        by: by.map(|_| {
            values
                .iter()
                .map(|(value, rows)| (value.to_string(), *rows))
                .collect()
        }),
    };
    Ok(Json(Histogram {
        from: Some(buckets.from.to_rfc3339()),
        to: Some(buckets.to.to_rfc3339()),
        bucket_ms: buckets.width_ms,
        earlier: histogram.earlier,
        later: histogram.later,
        buckets: (0..).zip(histogram.counts).map(bucket).collect(),
        exact: true,
    }))
}

/// Requires a table with a time column.
pub fn require_time(shape: &Shape) -> Result<(), Problem> {
    match shape.time() {
        Some(_) => Ok(()),
        None => Err(Problem::bad_request(format!(
            "table {} has no column with the role time",
            shape.entry.name
        ))),
    }
}
