//! Parsers of queries and cursors, for the fuzz targets.

use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::cursor;
use super::tables::selection;
use lantern_model::identity::RowIdentity;
use lantern_model::schema::TableName;
use lantern_model::schema::description::TableDescription;
use lantern_store::reader::{Selection, Shape, TableEntry};

/// Parses a query against a table with this description.
///
/// # Errors
/// The reason why the query is invalid.
pub fn selection(description: &TableDescription, query: &str) -> Result<Selection, String> {
    let name = TableName::parse("things")?;
    let entry = TableEntry {
        name,
        plugin: "things".to_owned(),
        description: description.clone(),
        rows_expired: 0,
    };
    let shape = Shape::unindexed(entry).map_err(|error| error.to_string())?;
    let uri = Uri::builder().path_and_query(format!("/rows?{query}")).build();
    let uri = uri.map_err(|error| error.to_string())?;
    let rejected = |problem: super::problem::Problem| format!("{problem:?}");
    let parameters = selection::read(&uri, &[]).map_err(rejected)?;
    assert_eq!(
        selection::fingerprint(&parameters),
        selection::fingerprint(&parameters)
    );
    selection::parse(&shape, &parameters).map_err(rejected)
}

/// Decodes a cursor as each kind, and a row identity, and checks that encoding it again gives the same value.
pub fn cursor(list: &str, text: &str) {
    if let Ok(id) = RowIdentity::parse(text) {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(number) = cursor::decode(list, text) {
        assert_eq!(
            cursor::decode(list, &cursor::encode(list, number)).ok(),
            Some(number)
        );
    }
    if let Ok(place) = cursor::place(list, text) {
        let again = cursor::place(list, &cursor::of_place(list, &place)).ok();
        assert_eq!(again, Some(place));
    }
    if let Ok(places) = cursor::places("things", text) {
        let again = cursor::places("things", &cursor::of_places("things", &places)).ok();
        assert_eq!(again, Some(places));
    }
}

/// Like [`cursor`], for the content of a cursor of `list` before base64.
pub fn cursor_of(list: &str, inside: &[u8]) {
    for list_line in [
        format!("{list}\n"),
        format!("{list} "),
        "tail things\n".to_owned(),
    ] {
        let bytes = [list_line.as_bytes(), inside].concat();
        cursor(list, &URL_SAFE_NO_PAD.encode(bytes));
    }
}
