//! A table of visits with all types of columns, for tests of selections.

use super::*;

/// A table as its plugin would describe it, with the indexes that the host creates.
const VISITS: &str = r#"{
  "doc": "Visits.", "primary_key": [], "indexes": [], "retention_days": null, "hints": {},
  "columns": [
    {"name": "pc", "type": "text", "nullable": false, "role": "entity", "unit": null, "doc": "", "hints": {}},
    {"name": "at", "type": "timestamp", "nullable": true, "role": "time", "unit": null, "doc": "", "hints": {}},
    {"name": "kind", "type": "text", "nullable": true, "role": "facet", "unit": null, "doc": "", "hints": {}},
    {"name": "ok", "type": "boolean", "nullable": true, "role": "facet", "unit": null, "doc": "", "hints": {}},
    {"name": "bytes", "type": "integer", "nullable": true, "role": "measure", "unit": "By", "doc": "", "hints": {}},
    {"name": "load", "type": "real", "nullable": true, "role": "measure", "unit": null, "doc": "", "hints": {}},
    {"name": "note", "type": "text", "nullable": true, "role": null, "unit": null, "doc": "", "hints": {}},
    {"name": "body", "type": "blob", "nullable": true, "role": null, "unit": null, "doc": "", "hints": {}},
    {"name": "extra", "type": "json", "nullable": true, "role": null, "unit": null, "doc": "", "hints": {}}
  ]}"#;

/// Microseconds of 2026-11-20T00:00:00Z.
pub const DAY: i64 = 1_795_132_800_000_000;

pub const MINUTE: i64 = 60_000_000;

pub struct Visits {
    pub database: Database,
    pub api: Router,
}

/// One visit; unset fields are null.
#[derive(Clone, Default)]
pub struct Visit {
    pub pc: &'static str,
    pub at: Option<i64>,
    pub kind: Option<String>,
    pub ok: Option<bool>,
    pub bytes: Option<i64>,
    pub load: Option<f64>,
    pub note: Option<String>,
    pub body: Option<Vec<u8>>,
    pub extra: Option<String>,
}

impl Visits {
    pub async fn new() -> Self {
        let database = Database::new();
        let writer = database.writer();
        writer
            .execute_batch(
                "CREATE TABLE visits (
                     _origin INTEGER NOT NULL, _sequence INTEGER NOT NULL, _row INTEGER NOT NULL,
                     pc TEXT NOT NULL, at INTEGER, kind TEXT, ok INTEGER, bytes INTEGER, load REAL, note TEXT, body BLOB,
                     extra TEXT
                 ) STRICT;
                 CREATE UNIQUE INDEX visits__origin ON visits (_origin, _sequence, _row);
                 CREATE INDEX visits__at ON visits (at);
                 CREATE INDEX visits__pc ON visits (pc, at);
                 CREATE INDEX visits__kind ON visits (kind, at);",
            )
            .unwrap();
        writer
            .execute(
                "INSERT INTO _lantern_table (name, plugin, description, updates) VALUES ('visits', 'things', ?1, 0)",
                [VISITS],
            )
            .unwrap();
        let api = router(database.state().await);
        Self { database, api }
    }

    /// Appends rows.
    pub fn add(&self, visits: &[Visit]) {
        let mut writer = self.database.writer();
        let transaction = writer.transaction().unwrap();
        for visit in visits {
            transaction
                .execute(
                    "INSERT INTO visits SELECT 1, coalesce(max(_sequence), 0) + 1, 0,
                         ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 FROM visits",
                    rusqlite::params![
                        visit.pc,
                        visit.at,
                        visit.kind,
                        visit.ok,
                        visit.bytes,
                        visit.load,
                        visit.note,
                        visit.body,
                        visit.extra
                    ],
                )
                .unwrap();
        }
        transaction.commit().unwrap();
    }

    pub async fn ask(&self, rest: &str) -> Value {
        get_json(&self.api, &format!("/api/v1/tables/visits{rest}")).await
    }

    /// Returns the sequences of one page.
    pub async fn rows(&self, query: &str) -> Vec<i64> {
        rows_of(&self.ask(&format!("/rows?limit=1000&{query}")).await)
    }

    /// Returns the sequences of all pages; requests small pages.
    pub async fn walk(&self, query: &str) -> Vec<i64> {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.ask(&format!("/rows?limit=7&{query}{cursor}")).await;
            found.extend(rows_of(&page));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return found,
            }
        }
    }
}

fn rows_of(page: &Value) -> Vec<i64> {
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["_sequence"].as_i64().unwrap()).collect()
}

/// Percent-encodes a text for a URL.
pub fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// Creates a hundred rows with ties, nulls and few kinds.
pub async fn hundred() -> Visits {
    let visits = Visits::new().await;
    let rows: Vec<Visit> = (0..100_i64)
        .map(|number| Visit {
            pc: ["alpha", "beta", "gamma"][number as usize % 3],
            at: (number % 10 != 3).then_some(DAY + number / 4 * MINUTE),
            kind: (number % 7 != 0).then(|| format!("k{}", number % 5)),
            ok: (number % 4 != 0).then_some(number % 2 == 0),
            bytes: (number % 6 != 0).then_some(number * 37 % 11),
            load: (number % 9 != 0).then_some((number * 13 % 17) as f64 / 7.0),
            note: (number % 8 != 0).then(|| "x".repeat(number as usize * 20)),
            ..Visit::default()
        })
        .collect();
    visits.add(&rows);
    visits
}
