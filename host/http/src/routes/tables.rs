//! Routes about the tables of plugins and their rows.

use super::Routes;
use crate::doc::{Doc, Query, Tag, choice, event, header, list, number, text};
use crate::parameters::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::tables::{
    self, facets,
    histogram::{self, BUCKETS_MAX},
    selection, series,
};
use lantern_api::{
    Count, Facets, GapEvent, Histogram, Row, RowDetail, RowPage, RowsEvent, SeriesAnswer, Table,
};

pub fn routes(routes: Routes) -> Routes {
    figures(streams(rows(routes)))
}

fn doc(id: &'static str, summary: &'static str) -> Doc {
    Doc::new(Tag::Tables, id, summary)
}

fn columns() -> Query {
    let words = "The columns that are wanted; all of them when nothing is said.";
    list("columns", words)
}

/// The column, or the order of arrival.
fn order() -> [Query; 2] {
    let words = "The column to order by; with `-` before it, the greatest first. Rows without a value \
                 come last.";
    [
        text("sort", words).example("-at"),
        choice("order", &["asc", "desc"], "The order of arrival instead."),
    ]
}

fn rows(routes: Routes) -> Routes {
    routes
        .read(
            "/api/v1/tables",
            tables::list,
            doc("listTables", "All tables").answers_list::<Table>("The tables, by name."),
        )
        .read(
            "/api/v1/tables/{table}",
            tables::one,
            doc("getTable", "One table").answers::<Table>("The table."),
        )
        .read(
            "/api/v1/tables/{table}/rows",
            tables::rows,
            doc("listRows", "Rows of a table, in pages")
                .says(
                    "Without `sort` the newest by the time column come first, and where there is none, \
                     the last to arrive. Pages neither repeat nor lose rows that are there all the time. \
                     Where no index leads to the rows, a page may be short, or empty, and still have a \
                     `next_cursor`: so far was looked.",
                )
                .queries(selection::described())
                .query(number("limit", 1, LIMIT_MAX, LIMIT_DEFAULT, "Rows of a page."))
                .query(text(
                    "cursor",
                    "The page's beginning: `next_cursor` of the one before, with the same selection and \
                     order.",
                ))
                .queries(order())
                .query(columns())
                .answers::<RowPage>("One page."),
        )
        .read(
            "/api/v1/tables/{table}/rows/{row}",
            tables::detail,
            doc("getRow", "One row with all that is known of it")
                .says("The message is shown as long as its stream has it, or a dead letter was kept of it.")
                .query(selection::integers_described())
                .answers::<RowDetail>("The row, with its message, its version, and its neighbours in time."),
        )
}

/// Rows that come for as long as somebody takes them.
fn streams(routes: Routes) -> Routes {
    routes
        .read(
            "/api/v1/tables/{table}/tail",
            tables::tail,
            doc("followTable", "Rows of a table as they come")
                .says(
                    "A row that a later message changes comes again. Rows that heal or are reprojected \
                     come in the place of their message, which has gone by: they are in the table, and \
                     not here. Whoever follows with a token is told no more when it is revoked or \
                     expires.",
                )
                .queries(selection::described())
                .query(columns())
                .query(text(
                    "after",
                    "The last `id` that was heard, for clients that cannot send `Last-Event-ID`.",
                ))
                .parameter(header(
                    "Last-Event-ID",
                    "The last `id` that was heard, as browsers send it when they come back.",
                ))
                .answers_events(
                    "Events until the client hangs up.",
                    [
                        event::<RowsEvent>(
                            "rows",
                            "rows that have come or changed, with an `id` to come back to.",
                        ),
                        event::<GapEvent>(
                            "gap",
                            "rows were left out here: because the client was slow, because it comes back \
                             to more than 5,000, or because more than 500 a second come for long.",
                        ),
                    ],
                ),
        )
        .read_recorded(
            "/api/v1/tables/{table}/export",
            "table.export",
            tables::export,
            doc("exportTable", "Rows of a table as a file")
                .says(
                    "It is read in short pages while the client takes it, so it is no snapshot. An \
                     export that breaks off ends without the last chunk of HTTP, which clients notice. \
                     In CSV (RFC 4180) a text that begins with `=` `+` `-` `@`, tab or return gets an \
                     apostrophe in front, so that no spreadsheet runs it.",
                )
                .query(
                    choice("format", &["csv", "jsonl"], "How it is written.")
                        .required()
                        .example("csv"),
                )
                .queries(selection::described())
                .queries(order())
                .query(columns())
                .answers_text("text/csv", "The rows.")
                .answers_lines::<Row>("The rows."),
        )
}

fn figures(routes: Routes) -> Routes {
    let by = || text("by", "A column; rows are told apart by its values.");
    let newest = "Where all rows would take too long, the newest ones stand for them, and `exact` is false.";
    routes
        .read(
            "/api/v1/tables/{table}/count",
            tables::count,
            doc("countRows", "How many rows there are")
                .queries(selection::described())
                .answers::<Count>("The number, up to 10,000."),
        )
        .read(
            "/api/v1/tables/{table}/facets",
            tables::facets,
            doc("facets", "Frequent values of columns")
                .says(
                    "A column leaves out the choice among its own values. Where all rows would take too \
                     long, the newest ones stand for them, and `exact` is false.",
                )
                .queries(selection::described())
                .query(
                    list(
                        "columns",
                        format!("The columns, at most {}.", facets::COLUMNS_MAX),
                    )
                    .required(),
                )
                .query(number(
                    "limit",
                    1,
                    1_000,
                    facets::VALUES_DEFAULT,
                    "Values of each column.",
                ))
                .answers::<Facets>("The values, with how many rows have them."),
        )
        .read(
            "/api/v1/tables/{table}/histogram",
            tables::histogram,
            doc("histogram", "Rows over time")
                .queries(selection::described())
                .query(number(
                    "buckets",
                    1,
                    BUCKETS_MAX,
                    histogram::BUCKETS_DEFAULT,
                    "About how many buckets.",
                ))
                .query(by())
                .answers::<Histogram>("Buckets of one width that follow each other without a hole."),
        )
        .read(
            "/api/v1/tables/{table}/series",
            tables::series,
            doc("series", "Quantities over time")
                .says(newest)
                .queries(selection::described())
                .query(
                    list(
                        "measures",
                        format!(
                            "Columns of numbers, at most {}. Needed, unless `op` is `count`.",
                            series::MEASURES_MAX
                        ),
                    )
                    .example("load"),
                )
                .query(choice(
                    "op",
                    &series::OPERATIONS,
                    "What is made of the values of a bucket; the average when nothing is said.",
                ))
                .query(by())
                .query(number(
                    "buckets",
                    1,
                    BUCKETS_MAX,
                    series::BUCKETS_DEFAULT,
                    "About how many buckets.",
                ))
                .answers::<SeriesAnswer>("A line for each measure and each value of `by`."),
        )
}
