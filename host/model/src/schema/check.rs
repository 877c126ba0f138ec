//! From what a plugin sent to what the host may rely on. All problems are found, not only the first.

mod internal;
mod size;

use std::fmt;

use super::subjects::{covers, overlap};
use super::{
    Column, ColumnName, ColumnType, Guard, Index, Manifest, Merge, OnConflict, Origin, PluginName, RawGuard,
    RawManifest, RawOnConflict, RawSource, RawTable, RawWrite, Role, Source, SourceName, Table, TableName,
    UpdateRule, Write,
};
use crate::batch::is_hazardous;

/// SQLite allows 2,000 columns and 32,766 variables; nobody can read a table of this width.
const COLUMNS_MAX: usize = 256;
/// Bounds what one plugin can make the host keep for it; generous by two orders of magnitude.
const TABLES_MAX: usize = 64;
const SOURCES_MAX: usize = 64;
const SUBJECTS_MAX: usize = 256;
const WRITES_MAX: usize = 256;
const INDEXES_MAX: usize = 32;
/// All names, documentation, hints, units and subjects of a manifest together. The API shows the whole of it to every
/// client that lists tables, and the database keeps it for each version.
const MANIFEST_BYTES_MAX: usize = 256 * 1024;
/// A description is for people; a plugin must not use it to fill the disk.
const DOC_BYTES_MAX: usize = 64 * 1024;
/// Hints of one table or column, and the bytes of one.
const HINTS_MAX: usize = 64;
const HINT_BYTES_MAX: usize = 4 * 1024;
/// Longest unit; those of UCUM are a few letters.
const UNIT_BYTES_MAX: usize = 64;

/// One thing that is wrong with a manifest, in words that name the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(pub String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Manifest {
    /// Checks what a plugin sent.
    ///
    /// # Errors
    /// All problems that were found, in the order of the manifest.
    pub fn check(raw: RawManifest) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let bytes = size::of(&raw);
        if bytes > MANIFEST_BYTES_MAX {
            // Nothing else is checked: each problem would repeat a part of it.
            problems.say(format!(
                "the description has {bytes} bytes, and the limit is {MANIFEST_BYTES_MAX}"
            ));
            return Err(problems.0);
        }
        let name = problems.keep(PluginName::parse(&raw.name));
        let version = problems.keep(semver::Version::parse(&raw.version).map_err(|error| {
            format!(
                "version {:?} is not one as semver.org has it: {error}",
                clean(&raw.version)
            )
        }));
        problems.bound("sources", raw.sources.len(), SOURCES_MAX);
        problems.bound("tables", raw.tables.len(), TABLES_MAX);
        problems.bound("writes", raw.writes.len(), WRITES_MAX);
        problems.doc("the plugin", &raw.doc);
        if raw.sources.is_empty() {
            problems.say("there is no source: a plugin reads at least one".to_owned());
        }
        let sources = check_sources(raw.sources, &mut problems);
        let tables = check_tables(raw.tables, &mut problems);
        let writes = match &tables {
            Some(tables) => check_writes(&raw.writes, tables, &mut problems),
            None => None,
        };
        match (name, version, sources, tables, writes, problems.0.is_empty()) {
            (Some(name), Some(version), Some(sources), Some(tables), Some(writes), true) => Ok(Self {
                name,
                version,
                doc: raw.doc,
                sources,
                tables,
                writes,
            }),
            _ => Err(problems.0),
        }
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn say(&mut self, problem: String) {
        self.0.push(Problem(problem));
    }

    fn keep<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.say(problem)).ok()
    }

    fn keep_in<T>(&mut self, place: &str, result: Result<T, String>) -> Option<T> {
        result
            .map_err(|problem| self.say(format!("{place}: {problem}")))
            .ok()
    }

    fn bound(&mut self, what: &str, count: usize, max: usize) {
        if count > max {
            self.say(format!("{count} {what} are more than {max}"));
        }
    }

    fn doc(&mut self, place: &str, doc: &str) {
        if doc.len() > DOC_BYTES_MAX {
            self.say(format!("the doc of {place} is longer than 64 KiB"));
        }
        if doc.contains(|c| is_hazardous(c) && !matches!(c, '\n' | '\t')) {
            self.say(format!(
                "the doc of {place} has a control character or a mark that changes the direction of text"
            ));
        }
    }

    fn hints(&mut self, place: &str, hints: &[(String, String)]) {
        self.bound(&format!("hints of {place}"), hints.len(), HINTS_MAX);
        for (key, value) in hints {
            if key.len() + value.len() > HINT_BYTES_MAX {
                self.say(format!(
                    "the hint {:?} of {place} is longer than 4 KiB",
                    clean(key)
                ));
            }
            self.one_line("a hint", place, key);
            self.one_line("a hint", place, value);
        }
    }

    /// Text that is shown on one line.
    fn one_line(&mut self, what: &str, place: &str, text: &str) {
        if text.contains(is_hazardous) {
            self.say(format!(
                "{what} of {place} has a control character or a mark that changes the direction of text"
            ));
        }
    }
}

fn clean(text: &str) -> String {
    crate::batch::clean_text(text, 80)
}

fn check_sources(raw: Vec<RawSource>, problems: &mut Problems) -> Option<Vec<Source>> {
    let mut sources: Vec<Source> = Vec::with_capacity(raw.len());
    for source in raw {
        let Some(name) = problems.keep(SourceName::parse(&source.name)) else {
            continue;
        };
        let place = format!("source {name}");
        if sources.iter().any(|other| other.name == name) {
            problems.say(format!("{place} is declared twice"));
        }
        match &source.origin {
            Origin::JetStream { stream, subjects } => {
                if let Err(problem) = check_stream_name(stream) {
                    problems.say(format!("{place}: {problem}"));
                }
                check_subjects(&place, subjects, problems);
                // The broker refuses such a consumer. It takes subjects that overlap otherwise, and delivers once.
                check_pairs(&place, subjects, problems, |a, b| covers(a, b) || covers(b, a));
            }
            Origin::Core { subjects } => {
                if subjects.is_empty() {
                    problems.say(format!("{place}: a core source names at least one subject"));
                }
                check_subjects(&place, subjects, problems);
                // Each subject is a separate subscription: messages that match both would arrive twice.
                check_pairs(&place, subjects, problems, overlap);
            }
        }
        sources.push(Source {
            name,
            origin: source.origin,
            wants_headers: source.wants_headers,
        });
    }
    Some(sources)
}

/// As the server has it: no white space, dots, wildcards or path separators.
fn check_stream_name(stream: &str) -> Result<(), String> {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
    if stream.is_empty() || stream.len() > 255 || stream.contains(forbidden) {
        Err(format!("{:?} is not a stream name", clean(stream)))
    } else {
        Ok(())
    }
}

fn check_subjects(place: &str, subjects: &[String], problems: &mut Problems) {
    problems.bound(&format!("subjects of {place}"), subjects.len(), SUBJECTS_MAX);
    for subject in subjects {
        let tokens: Vec<&str> = subject.split('.').collect();
        let bad_token = |(position, token): (usize, &&str)| {
            token.is_empty()
                || token.contains(|c: char| c.is_whitespace() || c.is_control())
                || (*token != "*" && *token != ">" && token.contains(['*', '>']))
                || (*token == ">" && position + 1 != tokens.len())
        };
        if subject.len() > 4096 || tokens.iter().enumerate().any(bad_token) {
            problems.say(format!("{place}: {:?} is not a subject", clean(subject)));
        }
    }
}

/// Finds subjects of one source that cannot be wanted together.
fn check_pairs(
    place: &str,
    subjects: &[String],
    problems: &mut Problems,
    contradict: impl Fn(&str, &str) -> bool,
) {
    // Longer lists are refused for their length, and comparing all pairs of them would take long.
    for (index, subject) in subjects.iter().enumerate().take(SUBJECTS_MAX) {
        if let Some(other) = subjects[..index].iter().find(|other| contradict(subject, other)) {
            problems.say(format!(
                "{place}: subjects {:?} and {:?} overlap; keep one of them",
                clean(other),
                clean(subject)
            ));
        }
    }
}

fn check_tables(raw: Vec<RawTable>, problems: &mut Problems) -> Option<Vec<Table>> {
    let declared = raw.len();
    let mut tables: Vec<Table> = Vec::with_capacity(declared);
    for table in raw {
        let Some(name) = problems.keep(TableName::parse(&table.name)) else {
            continue;
        };
        if tables.iter().any(|other| other.name == name) {
            problems.say(format!("table {name} is declared twice"));
        }
        if let Some(table) = check_table(name, table, problems) {
            tables.push(table);
        }
    }
    (tables.len() == declared).then_some(tables)
}

fn check_table(name: TableName, raw: RawTable, problems: &mut Problems) -> Option<Table> {
    let before = problems.0.len();
    let place = format!("table {name}");
    problems.bound(&format!("columns of {place}"), raw.columns.len(), COLUMNS_MAX);
    problems.bound(&format!("indexes of {place}"), raw.indexes.len(), INDEXES_MAX);
    problems.doc(&place, &raw.doc);
    problems.hints(&place, &raw.hints);
    if raw.columns.is_empty() {
        problems.say(format!("{place} has no columns"));
    }
    let mut columns: Vec<Column> = Vec::with_capacity(raw.columns.len());
    for column in raw.columns {
        let Some(name) = problems.keep_in(&place, ColumnName::parse(&column.name)) else {
            continue;
        };
        if columns.iter().any(|other| other.name == name) {
            problems.say(format!("{place}: column {name} is declared twice"));
        }
        let of_column = format!("{place}, column {name}");
        problems.doc(&of_column, &column.doc);
        problems.hints(&of_column, &column.hints);
        if let Role::Measure(unit) = &column.role {
            if unit.len() > UNIT_BYTES_MAX {
                problems.say(format!(
                    "the unit of {of_column} is longer than {UNIT_BYTES_MAX} bytes"
                ));
            }
            problems.one_line("the unit", &of_column, unit);
        }
        if column.role == Role::Time && column.column_type != ColumnType::Timestamp {
            problems.say(format!(
                "{place}: column {name} has the role time but is a {}",
                column.column_type
            ));
        }
        columns.push(Column {
            name,
            column_type: column.column_type,
            nullable: column.nullable,
            role: column.role,
            doc: column.doc,
            hints: column.hints,
        });
    }
    let times = columns.iter().filter(|column| column.role == Role::Time).count();
    if times > 1 {
        problems.say(format!("{place} has {times} columns with the role time"));
    }
    if raw.retention_days.is_some() && times == 0 {
        problems.say(format!(
            "{place} keeps rows for some days, but no column has the role time"
        ));
    }
    if raw.retention_days == Some(0) {
        problems.say(format!("{place} keeps rows for 0 days"));
    }
    let primary_key = columns_of(&place, "the primary key", &raw.primary_key, &columns, problems);
    for key in primary_key.iter().flatten() {
        if columns
            .iter()
            .any(|column| column.name == *key && column.nullable)
        {
            problems.say(format!(
                "{place}: column {key} is in the primary key but nullable"
            ));
        }
    }
    let mut indexes: Vec<Index> = Vec::with_capacity(raw.indexes.len());
    for index in raw.indexes {
        if index.columns.is_empty() {
            problems.say(format!("{place} has an index without columns"));
        }
        if let Some(columns) = columns_of(&place, "an index", &index.columns, &columns, problems) {
            indexes.push(Index {
                columns,
                unique: index.unique,
            });
        }
    }
    (problems.0.len() == before).then_some(Table {
        name,
        doc: raw.doc,
        columns,
        primary_key: primary_key.unwrap_or_default(),
        indexes,
        retention_days: raw.retention_days,
        hints: raw.hints,
    })
}

fn columns_of(
    place: &str,
    what: &str,
    names: &[String],
    columns: &[Column],
    problems: &mut Problems,
) -> Option<Vec<ColumnName>> {
    let mut found: Vec<ColumnName> = Vec::with_capacity(names.len());
    for name in names {
        match columns.iter().find(|column| column.name.as_str() == name) {
            Some(column) if found.contains(&column.name) => {
                problems.say(format!("{place}: {what} names column {} twice", column.name));
            }
            Some(column) => found.push(column.name.clone()),
            None => problems.say(format!(
                "{place}: {what} names {:?}, which is no column",
                clean(name)
            )),
        }
    }
    (found.len() == names.len()).then_some(found)
}

fn check_writes(raw: &[RawWrite], tables: &[Table], problems: &mut Problems) -> Option<Vec<Write>> {
    let mut writes = Vec::with_capacity(raw.len());
    for (number, write) in raw.iter().enumerate() {
        let place = format!("write {number} (into {:?})", clean(&write.table));
        let Some(index) = tables.iter().position(|table| table.name.as_str() == write.table) else {
            problems.say(format!("{place}: the plugin declares no such table"));
            continue;
        };
        if let Some(write) = check_write(&place, write, index, &tables[index], problems) {
            writes.push(write);
        }
    }
    (writes.len() == raw.len()).then_some(writes)
}

fn check_write(
    place: &str,
    raw: &RawWrite,
    table_index: usize,
    table: &Table,
    problems: &mut Problems,
) -> Option<Write> {
    let before = problems.0.len();
    if raw.columns.is_empty() {
        problems.say(format!("{place} names no columns"));
    }
    let names = columns_of(place, "the write", &raw.columns, &table.columns, problems)?;
    let columns: Vec<usize> = names
        .iter()
        .filter_map(|name| table.columns.iter().position(|column| column.name == *name))
        .collect();
    for column in &table.columns {
        if !column.nullable && !names.contains(&column.name) {
            problems.say(format!(
                "{place} leaves out column {}, which is not nullable",
                column.name
            ));
        }
    }
    let on_conflict = match &raw.on_conflict {
        RawOnConflict::Fail => Some(OnConflict::Fail),
        RawOnConflict::Ignore => Some(OnConflict::Ignore),
        RawOnConflict::Update { key, merges, guard } => {
            check_update(place, key, merges, guard, &names, table, problems).map(OnConflict::Update)
        }
    };
    match (on_conflict, problems.0.len() == before) {
        (Some(on_conflict), true) => Some(Write {
            table: table_index,
            columns,
            on_conflict,
        }),
        _ => None,
    }
}

fn check_update(
    place: &str,
    key: &[String],
    raw_merges: &[(String, Merge)],
    guard: &RawGuard,
    written: &[ColumnName],
    table: &Table,
    problems: &mut Problems,
) -> Option<UpdateRule> {
    let key = columns_of(place, "the key of the update", key, &table.columns, problems)?;
    if !table.has_key(&key) {
        let words: Vec<&str> = key.iter().map(ColumnName::as_str).collect();
        problems.say(format!(
            "{place} updates by ({}), which is neither the primary key nor a unique index of {}",
            words.join(", "),
            table.name
        ));
    }
    let names: Vec<String> = raw_merges.iter().map(|(column, _)| column.clone()).collect();
    let named = columns_of(place, "a merge rule", &names, &table.columns, problems)?;
    let mut merges = Vec::with_capacity(named.len());
    for (name, (_, merge)) in named.into_iter().zip(raw_merges) {
        let column_type = table.column(&name).map(|column| column.column_type);
        let summable = matches!(column_type, Some(ColumnType::Integer | ColumnType::Real));
        if *merge == Merge::Add && !summable {
            problems.say(format!(
                "{place}: column {name} is not a number and cannot be added to"
            ));
        }
        if key.contains(&name) && *merge != Merge::Keep {
            problems.say(format!(
                "{place}: column {name} is part of the key and cannot change"
            ));
        }
        if !written.contains(&name) && *merge != Merge::Keep {
            problems.say(format!(
                "{place}: column {name} has a merge rule, but the write does not bring it"
            ));
        }
        merges.push((name, *merge));
    }
    let guard = match guard {
        RawGuard::Always => Guard::Always,
        RawGuard::WhileNull(column) => Guard::WhileNull(
            columns_of(
                place,
                "the guard",
                std::slice::from_ref(column),
                &table.columns,
                problems,
            )?
            .pop()?,
        ),
        RawGuard::Newer(column) => {
            let column = columns_of(
                place,
                "the guard",
                std::slice::from_ref(column),
                &table.columns,
                problems,
            )?
            .pop()?;
            if !written.contains(&column) {
                problems.say(format!(
                    "{place}: the guard compares {column}, which the write does not bring"
                ));
            }
            Guard::Newer(column)
        }
    };
    Some(UpdateRule { key, merges, guard })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{RawColumn, RawIndex};

    fn column(name: &str, column_type: ColumnType, nullable: bool) -> RawColumn {
        RawColumn {
            name: name.into(),
            column_type,
            nullable,
            role: Role::None,
            doc: String::new(),
            hints: Vec::new(),
        }
    }

    fn good() -> RawManifest {
        RawManifest {
            name: "orders".into(),
            version: "1.0.0".into(),
            doc: String::new(),
            sources: vec![RawSource {
                name: "orders".into(),
                origin: Origin::JetStream {
                    stream: "ORDERS".into(),
                    subjects: vec!["orders.>".into()],
                },
                wants_headers: false,
            }],
            tables: vec![RawTable {
                name: "orders".into(),
                columns: vec![
                    column("id", ColumnType::Text, false),
                    column("total", ColumnType::Integer, true),
                    column("at", ColumnType::Timestamp, true),
                ],
                primary_key: vec!["id".into()],
                indexes: vec![RawIndex {
                    columns: vec!["at".into()],
                    unique: false,
                }],
                ..RawTable::default()
            }],
            writes: vec![RawWrite {
                table: "orders".into(),
                columns: vec!["id".into(), "total".into(), "at".into()],
                on_conflict: RawOnConflict::Update {
                    key: vec!["id".into()],
                    merges: vec![("total".into(), Merge::Add)],
                    guard: RawGuard::Newer("at".into()),
                },
            }],
        }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut RawManifest), words: &str) {
        let mut manifest = good();
        change(&mut manifest);
        let problems = Manifest::check(manifest).expect_err("it should be refused");
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(
            all.iter().any(|problem| problem.contains(words)),
            "{words:?} is not in {all:?}"
        );
    }

    #[test]
    fn a_good_manifest_passes() {
        let manifest = Manifest::check(good()).expect("good");
        assert_eq!(manifest.writes[0].columns, [0, 1, 2]);
        assert!(manifest.tables[0].has_key(&[ColumnName::parse("id").unwrap()]));
    }

    #[test]
    fn each_kind_of_problem_is_named() {
        refused(|m| m.name = "../x".into(), "plugin name");
        refused(|m| m.version = "one".into(), "semver");
        refused(|m| m.sources.clear(), "no source");
        refused(
            |m| m.sources.push(m.sources[0].clone()),
            "source orders is declared twice",
        );
        refused(
            |m| {
                m.sources[0].origin = Origin::JetStream {
                    stream: "a b".into(),
                    subjects: vec![],
                }
            },
            "not a stream name",
        );
        for subject in ["a..b", "a.>.b", "a b", "", "a*.b"] {
            refused(
                |m| {
                    m.sources[0].origin = Origin::Core {
                        subjects: vec![subject.into()],
                    }
                },
                "is not a subject",
            );
        }
        let core = |subjects: [&str; 2]| Origin::Core {
            subjects: subjects.map(str::to_owned).into(),
        };
        let stream = |subjects: [&str; 2]| Origin::JetStream {
            stream: "S".into(),
            subjects: subjects.map(str::to_owned).into(),
        };
        for subjects in [["zeek.>", "zeek.a"], ["a.b", "a.*"], ["a", "a"]] {
            refused(
                |m| m.sources[0].origin = core(subjects),
                "overlap; keep one of them",
            );
            refused(
                |m| m.sources[0].origin = stream(subjects),
                "overlap; keep one of them",
            );
        }
        let crossing = ["a.*.c", "a.b.*"];
        refused(
            |m| m.sources[0].origin = core(crossing),
            "overlap; keep one of them",
        );
        let mut manifest = good();
        manifest.sources[0].origin = stream(crossing);
        Manifest::check(manifest).expect("the broker takes it");
        refused(
            |m| m.sources[0].origin = Origin::Core { subjects: vec![] },
            "at least one subject",
        );
        refused(
            |m| m.tables.push(m.tables[0].clone()),
            "table orders is declared twice",
        );
        refused(|m| m.tables[0].name = "sqlite_master".into(), "reserved");
        refused(|m| m.tables[0].columns.clear(), "no columns");
        refused(
            |m| m.tables[0].columns[1].name = "id".into(),
            "column id is declared twice",
        );
        refused(
            |m| m.tables[0].columns[1].role = Role::Time,
            "role time but is a integer",
        );
        refused(
            |m| m.tables[0].columns[0].nullable = true,
            "in the primary key but nullable",
        );
        refused(
            |m| m.tables[0].retention_days = Some(3),
            "no column has the role time",
        );
        refused(
            |m| m.tables[0].indexes[0].columns = vec!["nope".into()],
            "\"nope\", which is no column",
        );
        refused(|m| m.writes[0].table = "users".into(), "declares no such table");
        refused(|m| m.writes[0].columns.truncate(0), "names no columns");
        refused(
            |m| m.writes[0].columns = vec!["total".into(), "at".into()],
            "leaves out column id",
        );
    }

    #[test]
    fn a_manifest_is_bounded_as_a_whole_and_in_its_parts() {
        let hint = |bytes: usize| ("key".to_owned(), "x".repeat(bytes));
        refused(
            |m| m.tables[0].hints = vec![hint(5_000)],
            "the hint \"key\" of table orders",
        );
        refused(
            |m| m.tables[0].columns[1].hints = vec![hint(5_000)],
            "of table orders, column total",
        );
        refused(
            |m| m.tables[0].hints = vec![hint(1); 65],
            "65 hints of table orders are more than 64",
        );
        refused(
            |m| m.tables[0].columns[1].role = Role::Measure("x".repeat(65)),
            "the unit of table orders, column total",
        );
        refused(
            |m| m.tables[0].columns[1].hints = vec![hint(4_000); 70],
            "bytes, and the limit is 262144",
        );
        let table = |number: usize| RawTable {
            name: format!("t{number}"),
            columns: (0..256)
                .map(|number| column(&format!("c{number}"), ColumnType::Text, true))
                .collect(),
            ..RawTable::default()
        };
        refused(
            |m| m.tables = (0..63).map(table).collect(),
            "bytes, and the limit is 262144",
        );
        let mut large = good();
        large.tables[0].columns[1].hints = vec![hint(4_000); 50];
        Manifest::check(large).expect("within all limits");
    }

    #[test]
    fn core_subjects_that_carry_internal_traffic_are_found() {
        for (subject, expected) in [
            (">", true),
            ("*.>", true),
            ("*.a", true),
            ("$JS.>", true),
            ("$JS.API.>", true),
            ("_INBOX.>", true),
            ("$SYS.ACCOUNT.*.CONNECT", true),
            ("*", false),
            ("orders.>", false),
            ("orders.*.closed", false),
            ("$KV.bucket.>", false),
        ] {
            let mut manifest = good();
            manifest.sources[0].origin = Origin::Core {
                subjects: vec![subject.into()],
            };
            let manifest = Manifest::check(manifest).expect("good");
            let found = manifest.internal_subject();
            assert_eq!(found.map(|(_, subject)| subject), expected.then_some(subject));
        }
        assert_eq!(Manifest::check(good()).expect("good").internal_subject(), None);
    }

    #[test]
    fn texts_that_a_terminal_would_obey_are_refused() {
        for hostile in [
            "a\u{1b}[31m",
            "a\u{9b}2J",
            "a\u{7f}",
            "a\0",
            "a\rb",
            "a\u{202e}b",
            "a\u{2066}b",
        ] {
            refused(
                |m| m.doc = hostile.into(),
                "the doc of the plugin has a control character",
            );
            refused(
                |m| m.tables[0].doc = hostile.into(),
                "the doc of table orders has",
            );
            refused(
                |m| m.tables[0].columns[0].doc = hostile.into(),
                "the doc of table orders, column id has",
            );
            refused(
                |m| m.tables[0].columns[1].role = Role::Measure(hostile.into()),
                "the unit of table orders, column total has",
            );
            refused(
                |m| m.tables[0].hints.push((hostile.into(), "x".into())),
                "a hint of table orders has",
            );
            refused(
                |m| m.tables[0].columns[0].hints.push(("x".into(), hostile.into())),
                "a hint of table orders, column id has",
            );
        }
        let mut manifest = good();
        manifest.doc = "two lines\n\tof Grüße".into();
        Manifest::check(manifest).expect("line ends and tabs are good in a doc");
    }

    #[test]
    fn update_rules_are_checked_against_keys_and_types() {
        fn update(m: &mut RawManifest) -> (&mut Vec<String>, &mut Vec<(String, Merge)>, &mut RawGuard) {
            match &mut m.writes[0].on_conflict {
                RawOnConflict::Update { key, merges, guard } => (key, merges, guard),
                _ => unreachable!(),
            }
        }
        refused(
            |m| *update(m).0 = vec!["total".into()],
            "neither the primary key nor a unique index",
        );
        refused(|m| update(m).1.push(("at".into(), Merge::Add)), "not a number");
        refused(
            |m| update(m).1.push(("id".into(), Merge::Replace)),
            "part of the key",
        );
        refused(
            |m| *update(m).2 = RawGuard::WhileNull("nope".into()),
            "the guard names \"nope\"",
        );
        refused(
            |m| m.writes[0].columns = vec!["id".into(), "total".into()],
            "the guard compares at",
        );
        refused(
            |m| m.writes[0].columns = vec!["id".into(), "at".into()],
            "column total has a merge rule",
        );
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let mut manifest = good();
        manifest.name = "A".into();
        manifest.version = "x".into();
        manifest.tables[0].columns[1].name = "No".into();
        let problems = Manifest::check(manifest).expect_err("bad");
        assert!(problems.len() >= 3, "{problems:?}");
    }
}
