//! Routes for tables and their rows.

use super::Routes;
use crate::change::Change;
use crate::doc::{Doc, Query, Tag, choice, event, header, list, number, text};
use crate::parameters::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::tables::{
    self, facets,
    histogram::{self, BUCKETS_MAX},
    search, selection, series,
};
use lantern_api::{
    Count, Facets, Histogram, OmittedEvent, Row, RowDetail, RowPage, RowsEvent, SeriesAnswer, SetTableSearch,
    Table, TableSearch,
};

pub fn routes(routes: Routes) -> Routes {
    over_time(statistics(streams(rows(routes))))
}

fn doc(id: &'static str, summary: &'static str) -> Doc {
    Doc::new(Tag::Tables, id, summary)
}

fn columns() -> Query {
    let words = "Columns to return; defaults to all.";
    list("columns", words)
}

/// Order by a column, or by arrival.
fn order() -> [Query; 2] {
    let words = "Column to sort by; a leading `-` sorts in descending order. Rows without a value come last.";
    [
        text("sort", words).example("-at"),
        choice("order", &["asc", "desc"], "Sort by arrival instead."),
    ]
}

fn rows(routes: Routes) -> Routes {
    routes
        .read(
            "/api/v1/tables",
            tables::list,
            doc("listTables", "List tables").answers_list::<Table>("All tables, ordered by name."),
        )
        .read(
            "/api/v1/tables/{table}",
            tables::one,
            doc("getTable", "Get a table").answers::<Table>("The table."),
        )
        .read(
            "/api/v1/tables/{table}/rows",
            tables::rows,
            doc("listRows", "List rows")
                .description(
                    "Without `sort` and `order`, rows are ordered by the time column, newest first, or by arrival if there is \
                     none. Pages neither repeat nor omit rows that exist throughout. A page may be short or empty \
                     and still have a `next_cursor`: one request scans a bounded number of rows.",
                )
                .queries(selection::parameters_doc())
                .query(number("limit", 1, LIMIT_MAX, LIMIT_DEFAULT, "Maximum number of rows per page."))
                .query(text(
                    "cursor",
                    "`next_cursor` of the previous page; filters and order must be the same.",
                ))
                .queries(order())
                .query(columns())
                .answers::<RowPage>("One page."),
        )
        .read(
            "/api/v1/tables/{table}/rows/{row}",
            tables::detail,
            doc("getRow", "Get a row")
                .description("The response includes the message if its stream or a dead letter still has it.")
                .query(selection::integers_doc())
                .answers::<RowDetail>("The row with its message, its version and its neighbours in time."),
        )
        .change(
            Change::put("/api/v1/tables/{table}/search", "table.search"),
            search::change,
            doc("setTableSearch", "Turn full-text search on or off")
                .description(
                    "The host builds the index in the background. Until an index contains a row, searches read the row, so \
                     that they find the same rows with and without an index.",
                )
                .takes::<SetTableSearch>()
                .answers::<TableSearch>("The state of the search."),
        )
}

/// Streaming responses.
fn streams(routes: Routes) -> Routes {
    routes
        .read(
            "/api/v1/tables/{table}/tail",
            tables::tail,
            doc("followTable", "Follow a table")
                .description(
                    "Sends rows as they are stored. A row that a later message updates is sent again. Rows of retried dead \
                     letters and of reprojections have the position of their original message and are not sent. \
                     The stream ends when the token is revoked or expires.",
                )
                .queries(selection::parameters_doc())
                .query(columns())
                .query(text(
                    "after",
                    "Last received `id`, for clients that cannot send `Last-Event-ID`.",
                ))
                .parameter(header(
                    "Last-Event-ID",
                    "Last received `id`. Browsers send it when they reconnect.",
                ))
                .answers_events(
                    "Events until the client disconnects.",
                    [
                        event::<RowsEvent>(
                            "rows",
                            "inserted or updated rows, with an `id` for resuming.",
                        ),
                        event::<OmittedEvent>(
                            "omitted",
                            "rows were omitted: the client was too slow, it missed more than 5,000 rows before it \
                             reconnected, or more than 500 rows per second arrived for a long time.",
                        ),
                    ],
                ),
        )
        .read_recorded(
            "/api/v1/tables/{table}/export",
            "table.export",
            tables::export,
            doc("exportTable", "Export rows")
                .description(
                    "The host reads the rows in short pages while the client receives them, so an export is not a snapshot. \
                     An aborted export ends without the final HTTP chunk, which clients detect. In CSV (RFC 4180) \
                     text that begins with `=` `+` `-` `@`, tab or carriage return is prefixed with an apostrophe, \
                     so that spreadsheets do not run it as a formula.",
                )
                .query(
                    choice("format", &["csv", "jsonl"], "File format.")
                        .required()
                        .example("csv"),
                )
                .queries(selection::parameters_doc())
                .queries(order())
                .query(columns())
                .answers_text("text/csv", "The rows.")
                .answers_lines::<Row>("The rows."),
        )
}

fn statistics(routes: Routes) -> Routes {
    routes
        .read(
            "/api/v1/tables/{table}/count",
            tables::count,
            doc("countRows", "Count rows")
                .description(
                    "A table that only grows has summaries of its rows. If they contain the number, it is exact; \
                     otherwise the host counts up to 10,000.",
                )
                .queries(selection::parameters_doc())
                .answers::<Count>("The number of rows."),
        )
        .read(
            "/api/v1/tables/{table}/facets",
            tables::facets,
            doc("facets", "List frequent values")
                .description(
                    "The facet of a column ignores `=` filters on that column. If counting all rows would take too long, only \
                     the newest rows count and `exact` is false.",
                )
                .queries(selection::parameters_doc())
                .query(
                    list(
                        "columns",
                        format!("Columns, at most {}.", facets::COLUMNS_MAX),
                    )
                    .required(),
                )
                .query(number(
                    "limit",
                    1,
                    1_000,
                    facets::VALUES_DEFAULT,
                    "Maximum number of values per column.",
                ))
                .answers::<Facets>("The values and their frequencies."),
        )
}

fn over_time(routes: Routes) -> Routes {
    let by = || text("by", "Column to group by.");
    let newest =
        "If aggregating all rows would take too long, only the newest rows count and `exact` is false.";
    routes
        .read(
            "/api/v1/tables/{table}/histogram",
            tables::histogram,
            doc("histogram", "Count rows over time")
                .queries(selection::parameters_doc())
                .query(number(
                    "buckets",
                    1,
                    BUCKETS_MAX,
                    histogram::BUCKETS_DEFAULT,
                    "Approximate number of buckets.",
                ))
                .query(by())
                .answers::<Histogram>("Contiguous buckets of equal width."),
        )
        .read(
            "/api/v1/tables/{table}/series",
            tables::series,
            doc("series", "Aggregate measures over time")
                .description(newest)
                .queries(selection::parameters_doc())
                .query(
                    list(
                        "measures",
                        format!(
                            "Numeric columns, at most {}. Required unless `op` is `count`.",
                            series::MEASURES_MAX
                        ),
                    )
                    .example("load"),
                )
                .query(choice(
                    "op",
                    &series::OPERATIONS,
                    "Aggregate function; defaults to `avg`.",
                ))
                .query(by())
                .query(number(
                    "buckets",
                    1,
                    BUCKETS_MAX,
                    series::BUCKETS_DEFAULT,
                    "Approximate number of buckets.",
                ))
                .answers::<SeriesAnswer>("One series for each measure and each value of `by`."),
        )
}
