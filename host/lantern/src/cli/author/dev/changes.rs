//! Finds rows and dead letters of a plugin that are new since the last query.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Instant;

use serde_json::Value as Tree;

use crate::cli::author::time;
use crate::cli::client::Client;
use crate::cli::{Failure, print};
use lantern_api::{DeadLetter, Page, Row, RowPage, Table};
use lantern_model::batch::clean_text;
use lantern_model::schema::Manifest;

/// Newest rows of one table to query.
const ROWS_QUERIED: usize = 100;
/// Rows of one table to print at once.
const ROWS_SHOWN: usize = 20;
/// Longest printed value, in bytes.
const VALUE_BYTES_MAX: usize = 80;

/// The known rows and dead letters of a plugin.
pub struct ChangeFeed {
    plugin: String,
    /// Tables with their columns.
    tables: Vec<(String, Vec<String>)>,
    /// Fingerprints of known rows.
    rows: HashSet<u64>,
    /// Id of the newest known dead letter.
    dead_letter_id: i64,
    built_at: Option<Instant>,
}

impl ChangeFeed {
    /// A feed in which every row is new.
    pub fn from_start(manifest: &Manifest) -> Self {
        let tables = manifest.tables.iter().map(|table| {
            let columns = table.columns.iter().map(|column| column.name.to_string());
            (table.name.to_string(), columns.collect())
        });
        Self {
            plugin: manifest.name.to_string(),
            tables: tables.collect(),
            rows: HashSet::new(),
            dead_letter_id: 0,
            built_at: None,
        }
    }

    /// A feed in which existing rows are known.
    pub fn from_now(manifest: &Manifest, client: &Client) -> Result<Self, Failure> {
        let mut feed = Self::from_start(manifest);
        feed.fetch(client)?;
        Ok(feed)
    }

    /// Sets the time of the build; the first change after it prints the elapsed time.
    pub fn set_built_at(&mut self, at: Instant) {
        self.built_at = Some(at);
    }

    /// Prints new rows and dead letters.
    pub fn print_new(&mut self, client: &Client) -> Result<(), Failure> {
        let lines = self.fetch(client)?;
        if lines.is_empty() {
            return Ok(());
        }
        let mut text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        if let Some(at) = self.built_at.take() {
            text.push_str(&format!("first result after {}\n", time(at.elapsed())));
        }
        print(&text)
    }

    fn fetch(&mut self, client: &Client) -> Result<Vec<String>, Failure> {
        let mut lines = Vec::new();
        let existing = table_names(client)?;
        for (table, columns) in &self.tables {
            // The table has not been created yet.
            if !existing.contains(table) {
                continue;
            }
            let path = format!("/api/v1/tables/{table}/rows?order=desc&limit={ROWS_QUERIED}");
            let page: RowPage = client.get_json(&path)?;
            let mut fresh = Vec::new();
            for row in page.items.iter().rev() {
                if self.rows.insert(fingerprint(table, row)) {
                    fresh.push(render_row(table, columns, row));
                }
            }
            let left_out = fresh.len().saturating_sub(ROWS_SHOWN);
            if left_out > 0 {
                lines.push(format!(
                    "row  {table}  at least {left_out} earlier rows are not shown"
                ));
            }
            lines.extend(fresh.into_iter().skip(left_out));
        }
        let path = format!("/api/v1/dead-letters?plugin={}&limit={ROWS_SHOWN}", self.plugin);
        let page: Page<DeadLetter> = client.get_json(&path)?;
        let newest = page.items.iter().map(|dead_letter| dead_letter.id).max();
        for dead_letter in page.items.iter().rev() {
            if dead_letter.id > self.dead_letter_id {
                lines.push(format!(
                    "dead {} {}  {}: {}",
                    dead_letter.subject, dead_letter.sequence, dead_letter.class, dead_letter.reason
                ));
            }
        }
        self.dead_letter_id = self.dead_letter_id.max(newest.unwrap_or(0));
        Ok(lines)
    }
}

fn table_names(client: &Client) -> Result<HashSet<String>, Failure> {
    let tables: Vec<Table> = client.get_json("/api/v1/tables")?;
    Ok(tables.into_iter().map(|table| table.name).collect())
}

fn fingerprint(table: &str, row: &Row) -> u64 {
    let mut hash = DefaultHasher::new();
    (table, Tree::Object(row.0.clone()).to_string()).hash(&mut hash);
    hash.finish()
}

fn render_row(table: &str, columns: &[String], row: &Row) -> String {
    let cells = columns.iter().filter_map(|column| {
        let value = match row.0.get(column)? {
            Tree::Null => return None,
            Tree::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some(format!("{column}={}", clean_text(&value, VALUE_BYTES_MAX)))
    });
    let cells: Vec<String> = cells.collect();
    format!("row  {table}  {}", cells.join("  "))
}
