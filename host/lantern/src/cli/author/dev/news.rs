//! What is new in a plugin's tables and among its dead letters since it was looked the last time, as lines.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Instant;

use serde::Deserialize;
use serde_json::Value as Tree;

use crate::cli::author::time;
use crate::cli::client::Client;
use crate::cli::{Failure, print};
use lantern_model::batch::clean_text;
use lantern_model::schema::Manifest;

/// Rows of one table that are looked at.
const ROWS_LOOKED_AT: usize = 100;
/// Rows of one table that are shown at once.
const ROWS_SHOWN: usize = 20;
/// Bytes of one value that are shown.
const VALUE_BYTES: usize = 80;

/// What is known already.
pub struct News {
    plugin: String,
    /// Tables with their columns.
    tables: Vec<(String, Vec<String>)>,
    rows: HashSet<u64>,
    letters: i64,
    built_at: Option<Instant>,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Tree>,
}

impl News {
    /// Everything is new.
    pub fn from_the_beginning(manifest: &Manifest) -> Self {
        let tables = manifest.tables.iter().map(|table| {
            let columns = table.columns.iter().map(|column| column.name.to_string());
            (table.name.to_string(), columns.collect())
        });
        Self {
            plugin: manifest.name.to_string(),
            tables: tables.collect(),
            rows: HashSet::new(),
            letters: 0,
            built_at: None,
        }
    }

    /// What is there now is not new.
    pub fn from_now_on(manifest: &Manifest, client: &Client) -> Result<Self, Failure> {
        let mut news = Self::from_the_beginning(manifest);
        news.fetch(client)?;
        Ok(news)
    }

    /// When the version was built that is looked at now: the first news say how long they took.
    pub fn built_at(&mut self, at: Instant) {
        self.built_at = Some(at);
    }

    /// Prints what is new.
    pub fn tell(&mut self, client: &Client) -> Result<(), Failure> {
        let lines = self.fetch(client)?;
        if lines.is_empty() {
            return Ok(());
        }
        let mut text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        if let Some(at) = self.built_at.take() {
            text.push_str(&format!("first after {}\n", time(at.elapsed())));
        }
        print(&text)
    }

    fn fetch(&mut self, client: &Client) -> Result<Vec<String>, Failure> {
        let mut lines = Vec::new();
        let known = tables_of(client)?;
        for (table, columns) in &self.tables {
            // A table that no version has made yet has no rows either.
            if !known.contains(table) {
                continue;
            }
            let path = format!("/api/v1/tables/{table}/rows?order=desc&limit={ROWS_LOOKED_AT}");
            let page: Page = client.get_json(&path)?;
            let mut fresh = Vec::new();
            for row in page.items.iter().rev() {
                if self.rows.insert(fingerprint(table, row)) {
                    fresh.push(line_of(table, columns, row));
                }
            }
            let left_out = fresh.len().saturating_sub(ROWS_SHOWN);
            if left_out > 0 {
                lines.push(format!("row  {table}  {left_out} rows or more before these"));
            }
            lines.extend(fresh.into_iter().skip(left_out));
        }
        let path = format!("/api/v1/dead-letters?plugin={}&limit={ROWS_SHOWN}", self.plugin);
        let page: Page = client.get_json(&path)?;
        let newest = page.items.iter().filter_map(|letter| letter["id"].as_i64()).max();
        for letter in page.items.iter().rev() {
            if letter["id"].as_i64().is_some_and(|id| id > self.letters) {
                let text = |key: &str| letter[key].as_str().unwrap_or_default().to_owned();
                lines.push(format!(
                    "dead {} {}  {}: {}",
                    text("subject"),
                    letter["sequence"],
                    text("class"),
                    text("reason")
                ));
            }
        }
        self.letters = self.letters.max(newest.unwrap_or(0));
        Ok(lines)
    }
}

fn tables_of(client: &Client) -> Result<HashSet<String>, Failure> {
    let tables: Vec<Tree> = client.get_json("/api/v1/tables")?;
    Ok(tables
        .iter()
        .filter_map(|table| Some(table["name"].as_str()?.to_owned()))
        .collect())
}

fn fingerprint(table: &str, row: &Tree) -> u64 {
    let mut hash = DefaultHasher::new();
    (table, row.to_string()).hash(&mut hash);
    hash.finish()
}

fn line_of(table: &str, columns: &[String], row: &Tree) -> String {
    let cells = columns.iter().filter_map(|column| {
        let value = match row.get(column)? {
            Tree::Null => return None,
            Tree::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some(format!("{column}={}", clean_text(&value, VALUE_BYTES)))
    });
    let cells: Vec<String> = cells.collect();
    format!("row  {table}  {}", cells.join("  "))
}
