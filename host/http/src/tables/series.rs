//! Aggregates measures over time.

use axum::Json;
use axum::extract;
use axum::http::Uri;

use super::facets::grouping;
use super::histogram::{BUCKETS_MAX, require_time};
use super::name::TablePath;
use super::selection;
use crate::problem::Problem;
use crate::state::State;
use lantern_api::{Series, SeriesAnswer};
use lantern_model::value::Value;
use lantern_store::reader::{Aggregate, Line, SeriesQuery, Shape};

/// Default number of buckets.
pub const BUCKETS_DEFAULT: u32 = 120;

/// Aggregate functions.
pub const OPERATIONS: [&str; 8] = ["avg", "min", "max", "sum", "count", "p50", "p95", "p99"];

/// Maximum number of measures per request; each needs a scan.
pub const MEASURES_MAX: usize = 8;

pub async fn series(
    extract::State(state): extract::State<State>,
    table: TablePath,
    uri: Uri,
) -> Result<Json<SeriesAnswer>, Problem> {
    let parameters = selection::read(&uri, &["measures", "op", "by", "buckets"])?;
    let shape = table.shape(&state.reader).await?;
    require_time(&shape)?;
    let op = parameters.choice("op", &OPERATIONS)?;
    let aggregate = match op {
        Some("min") => Aggregate::Minimum,
        Some("max") => Aggregate::Maximum,
        Some("sum") => Aggregate::Sum,
        Some("count") => Aggregate::Count,
        Some("p50") => Aggregate::Percentile(50),
        Some("p95") => Aggregate::Percentile(95),
        Some("p99") => Aggregate::Percentile(99),
        _ => Aggregate::Average,
    };
    let measures = selection::columns(&shape, &parameters, "measures")?.unwrap_or_default();
    check(&shape, &measures, aggregate)?;
    let by = grouping(&shape, &parameters)?;
    let query = SeriesQuery {
        selection: selection::parse(&shape, &parameters)?,
        measures,
        aggregate,
        by,
        buckets: parameters
            .number("buckets", 1, BUCKETS_MAX)?
            .unwrap_or(BUCKETS_DEFAULT),
    };
    let series = state.reader.series(&shape, &query).await?;
    let view = |line: Line| Series {
        measure: line.measure.map_or("rows".to_owned(), |position| {
            shape.columns[position].name.to_string()
        }),
        key: line.key.as_ref().map(Value::to_string),
        points: (0..)
            .zip(line.points)
            .filter_map(|(number, value)| Some((series.buckets?.start(number).0.div_euclid(1_000), value)))
            .collect(),
    };
    Ok(Json(SeriesAnswer {
        from: series.buckets.map(|buckets| buckets.from.to_rfc3339()),
        to: series.buckets.map(|buckets| buckets.to.to_rfc3339()),
        bucket_ms: series.buckets.map_or(0, |buckets| buckets.width_ms),
        series: series.lines.into_iter().map(view).collect(),
        more: series.more,
        exact: series.exact,
    }))
}

fn check(shape: &Shape, measures: &[usize], aggregate: Aggregate) -> Result<(), Problem> {
    if measures.len() > MEASURES_MAX {
        return Err(Problem::bad_request(format!(
            "measures: at most {MEASURES_MAX} are allowed"
        )));
    }
    if measures.is_empty() && aggregate != Aggregate::Count {
        return Err(Problem::bad_request("measures is required"));
    }
    for &position in measures {
        let column = &shape.columns[position];
        if !column.column_type.is_numeric() {
            return Err(Problem::bad_request(format!(
                "measures: {} has the type {}, which is not numeric",
                column.name, column.column_type
            )));
        }
    }
    Ok(())
}
