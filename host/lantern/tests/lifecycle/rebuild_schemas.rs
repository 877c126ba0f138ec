//! Property test of rebuilds after changes of a schema, for the tables of every stock, example and test plugin: new columns, a
//! dropped column, other merge rules. The result equals the tables of a new host that runs the changed version from the
//! first message on, or the rebuild is rejected before it changes anything. `LANTERN_REBUILD_SEED` and
//! `LANTERN_REBUILD_ROUNDS` select other runs.

use async_nats::jetstream;
use lantern_lifecycle::RebuildRequest;
use lantern_model::batch::{Delivery, Value};
use lantern_model::schema::{
    Column, ColumnName, ColumnType, DeclaredRole, Guard, Manifest, Merge, OnConflict, Table,
};

use super::rebuild_loss::state;
use super::rebuild_plugins::{PLUGINS, samples, vary};
use super::rebuild_property::{Random, number};
use super::*;

/// Rounds per plugin and change by default.
const ROUNDS: u64 = 1;

/// A column that only the changed version has.
const ADDED: &str = "added";

/// A change of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    NullableColumn,
    RequiredColumn,
    DroppedColumn,
    OtherMerges,
}

const CHANGES: [Change; 4] = [
    Change::NullableColumn,
    Change::RequiredColumn,
    Change::DroppedColumn,
    Change::OtherMerges,
];

impl Change {
    /// The manifest after the change. `None` if no table can change so.
    fn apply(self, manifest: &Manifest) -> Option<Manifest> {
        let mut changed = manifest.clone();
        changed.version = "0.0.2".parse().unwrap();
        match self {
            Self::NullableColumn => add_column(&mut changed, true),
            Self::RequiredColumn => add_column(&mut changed, false),
            Self::DroppedColumn => drop_columns(&mut changed),
            Self::OtherMerges => change_merges(&mut changed),
        }
        let is_changed = changed.tables != manifest.tables || changed.writes != manifest.writes;
        is_changed.then_some(changed)
    }
}

/// Adds a column to each table and to all of its writes.
fn add_column(manifest: &mut Manifest, nullable: bool) {
    let name = ColumnName::parse(ADDED).unwrap();
    for table in &mut manifest.tables {
        table.columns.push(Column {
            name: name.clone(),
            column_type: ColumnType::Text,
            nullable,
            role: DeclaredRole::None,
            doc: String::new(),
            hints: Vec::new(),
        });
    }
    for write in &mut manifest.writes {
        write.columns.push(manifest.tables[write.table].columns.len() - 1);
        if let OnConflict::Update(update) = &mut write.on_conflict {
            update.merges.push((name.clone(), Merge::Replace));
        }
    }
}

/// Whether a key, an index or a rule needs a column, or a write has no other.
fn is_needed(manifest: &Manifest, table: usize, column: usize) -> bool {
    let declared: &Table = &manifest.tables[table];
    let name = &declared.columns[column].name;
    let is_key = declared.primary_key.contains(name)
        || declared.indexes.iter().any(|index| index.columns.contains(name));
    let mut writes = manifest.writes.iter().filter(|write| write.table == table);
    is_key
        || writes.any(|write| {
            let by_rule = match &write.on_conflict {
                OnConflict::Update(update) => match &update.guard {
                    Guard::Always => update.key.contains(name),
                    Guard::WhileNull(guard) | Guard::Newer(guard) => {
                        guard == name || update.key.contains(name)
                    }
                },
                OnConflict::Fail | OnConflict::Ignore => false,
            };
            by_rule || write.columns == [column]
        })
}

/// Drops the last column of each table that nothing needs.
fn drop_columns(manifest: &mut Manifest) {
    for table in 0..manifest.tables.len() {
        let columns = 0..manifest.tables[table].columns.len();
        let Some(dropped) = columns.rev().find(|&column| !is_needed(manifest, table, column)) else {
            continue;
        };
        let name = manifest.tables[table].columns.remove(dropped).name;
        for write in manifest.writes.iter_mut().filter(|write| write.table == table) {
            write.columns.retain(|&column| column != dropped);
            for column in &mut write.columns {
                *column -= usize::from(*column > dropped);
            }
            if let OnConflict::Update(update) = &mut write.on_conflict {
                update.merges.retain(|(column, _)| *column != name);
            }
        }
    }
}

fn change_merges(manifest: &mut Manifest) {
    for write in &mut manifest.writes {
        if let OnConflict::Update(update) = &mut write.on_conflict {
            for (_, merge) in &mut update.merges {
                *merge = match merge {
                    Merge::Replace => Merge::Fill,
                    Merge::Fill => Merge::Replace,
                    Merge::Add | Merge::Min => Merge::Max,
                    Merge::Max => Merge::Min,
                    Merge::Keep => Merge::Keep,
                };
            }
        }
    }
}

/// A plugin whose rows are scripted, with messages for each of its streams.
struct Subject {
    manifest: Manifest,
    /// Names of streams and sources, and messages.
    streams: Vec<(String, String, Vec<String>)>,
}

impl Subject {
    /// Projects random messages with the original plugin.
    async fn of(name: &'static str, component: &[u8], random: &mut Random) -> Self {
        let (component, mut drawn) = (component.to_vec(), Random(random.next(u64::MAX)));
        let work = move || {
            let original = lantern_authoring::trial::load(&component).unwrap().plugin;
            let declared = original.manifest();
            let mut manifest = Manifest::clone(declared);
            manifest.version = "0.0.1".parse().unwrap();
            let (mut sources, mut streams) = (Vec::new(), Vec::new());
            for (index, samples) in samples(name, declared).into_iter().enumerate() {
                let source = &declared.sources[index];
                let Some(stream) = source.origin.stream().filter(|_| !samples.is_empty()) else {
                    continue;
                };
                let count = 10 + drawn.next(50);
                let messages = (1..=count).map(|sequence| {
                    let sample = &samples[usize::try_from(drawn.next(samples.len() as u64)).unwrap()];
                    let delivery = Delivery {
                        subject: sample.subject.clone(),
                        sequence,
                        published_ns: 1_767_225_600_000_000_000,
                        headers: Vec::new(),
                        payload: vary(&sample.payload, drawn.next(6)).into(),
                    };
                    let run = lantern_authoring::trial::run(&original, index, &[delivery]).unwrap();
                    scripted::message(declared, &run.outcomes[0])
                });
                streams.push((stream.to_owned(), source.name.to_string(), messages.collect()));
                sources.push(source.clone());
            }
            manifest.sources = sources;
            Self { manifest, streams }
        };
        tokio::task::spawn_blocking(work).await.unwrap()
    }

    /// Starts a host with a version of the plugin and publishes all messages.
    async fn start(&self, component: &[u8]) -> Scene {
        let scene = Scene::start().await;
        let context = scene.server.jetstream().await;
        for (stream, ..) in &self.streams {
            let config = jetstream::stream::Config {
                name: stream.clone(),
                subjects: vec![scripted::subject(stream)],
                ..Default::default()
            };
            context.create_stream(config).await.unwrap();
        }
        let installed = scene
            .lifecycle()
            .install(component.to_vec(), &operator())
            .await
            .unwrap();
        let activated = scene
            .lifecycle()
            .activate(&installed.plugin, Some(installed.digest), &operator())
            .await;
        activated.unwrap();
        for (stream, source, messages) in &self.streams {
            let subject = scripted::subject(stream).replace('>', "x");
            scene.publish_to(&subject, messages).await;
            // A rebuild orders the messages of several sources by time, so they are stored in that order too.
            let count = messages.len() as u64;
            scene
                .wait("all messages are handled", |scene| {
                    scene
                        .status(source)
                        .is_some_and(|status| status.checkpoint >= count)
                })
                .await;
        }
        scene
    }

    /// Removes messages from the streams. Returns whether all are left.
    async fn damage(&self, scene: &Scene, random: &mut Random) -> bool {
        let context = scene.server.jetstream().await;
        let mut whole = true;
        for (stream, _, messages) in &self.streams {
            let (stream, count) = (context.get_stream(stream).await.unwrap(), messages.len() as u64);
            let first = match random.one_in(2) {
                true => 1 + random.next(count),
                false => 1,
            };
            stream.purge().sequence(first).await.unwrap();
            whole &= first == 1;
            if random.one_in(3) && first + 1 < count {
                let sequence = first + 1 + random.next(count - first - 1);
                stream.delete_message(sequence).await.unwrap();
                whole = false;
            }
        }
        whole
    }
}

/// Rows of these tables without the added column, dead letters and totals, by source.
fn contents(scene: &Scene, manifest: &Manifest) -> Vec<String> {
    let mut all = Vec::new();
    let source = |origin: &str| format!("(SELECT source FROM _lantern_origin WHERE id = {origin})");
    for table in &manifest.tables {
        let columns = table.columns.iter().map(|column| column.name.as_str());
        let columns: Vec<String> = columns
            .filter(|name| *name != ADDED)
            .map(|name| format!("\"{name}\""))
            .collect();
        all.extend(scene.query(&format!(
            "SELECT '{}', {}, _sequence, _row, {} FROM \"{0}\" ORDER BY 2, 3, 4",
            table.name,
            source("_origin"),
            columns.join(", ")
        )));
    }
    all.extend(scene.query(&format!(
        "SELECT {}, sequence, class FROM _lantern_dead_letter WHERE state <> 'resolved' ORDER BY 1, 2",
        source("origin")
    )));
    all.extend(scene.query(&format!(
        "SELECT {}, sum(messages), sum(projected + skipped), sum(dead) FROM _lantern_ledger GROUP BY origin ORDER BY 1",
        source("origin")
    )));
    all
}

/// Returns whether the rebuild was completed.
async fn one_round(
    name: &'static str,
    component: &[u8],
    change: Change,
    random: &mut Random,
) -> Option<bool> {
    let subject = Subject::of(name, component, random).await;
    // A plugin that reads only core NATS has nothing to read again.
    let last = subject.streams.iter();
    let last = last.map(|(.., messages)| messages.len() as u64).max()?;
    let changed = change.apply(&subject.manifest)?;
    let default = [(ADDED, Value::Text("new".into()))];
    let before = scripted::component(&subject.manifest, &[]);
    let after = scripted::component(&changed, &default);
    let mut scene = subject.start(&before).await;
    let whole = random.one_in(2) || subject.damage(&scene, random).await;
    let installed = scene
        .lifecycle()
        .install(after.clone(), &operator())
        .await
        .unwrap();
    let restart = random.one_in(3);
    let request = RebuildRequest {
        digest: Some(installed.digest.to_string()),
        carry_over: random.one_in(2),
        from_sequence: random.one_in(3).then(|| 1 + random.next(last)),
        keep_old_s: if random.one_in(2) { 3_600 } else { 0 },
        rate: restart.then_some(50),
        ..RebuildRequest::default()
    };
    let what = format!("{name}, {change:?}, whole: {whole}, {request:?}");
    let asks_nothing = !request.carry_over && request.from_sequence.is_none();
    let old = state(&scene);
    let started = scene.lifecycle().rebuild("scripted", request, &operator()).await;
    let ended = match started {
        Ok(id) => {
            if restart {
                scene.close().await;
                scene.open().await;
            }
            let view = scene.wait_for_rebuild(id).await.unwrap();
            (view.state == RebuildState::Done)
                .then_some(())
                .ok_or(format!("{view:?}"))
        }
        Err(error) => Err(error.to_string()),
    };
    match &ended {
        Ok(()) => {
            let expected = subject.start(&after).await;
            assert_eq!(
                contents(&scene, &changed),
                contents(&expected, &changed),
                "{what}"
            );
            for table in changed
                .tables
                .iter()
                .filter(|table| table.columns.iter().any(|column| column.name.as_str() == ADDED))
            {
                // Rows whose messages are not read again have no value, where that is allowed.
                let other = if asks_nothing {
                    "added IS NOT 'new'"
                } else {
                    "added <> 'new'"
                };
                let rows = scene.query(&format!("SELECT * FROM \"{}\" WHERE {other}", table.name));
                assert_eq!(rows, [""; 0], "{what}");
            }
        }
        Err(reason) => {
            assert_eq!(state(&scene), old, "{what}: {reason}");
            assert!(
                !whole || !asks_nothing,
                "refused without a reason: {what}: {reason}"
            );
        }
    }
    scene.close().await;
    scene.sound();
    Some(ended.is_ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_after_a_change_of_the_schema_equals_a_new_host_or_changes_nothing() {
    let seed = number("LANTERN_REBUILD_SEED").unwrap_or(1);
    let rounds = number("LANTERN_REBUILD_ROUNDS").unwrap_or(ROUNDS);
    let (mut done, mut refused) = (0, 0);
    for (number, name) in (0..).zip(PLUGINS) {
        let component = tokio::task::spawn_blocking(|| evolving::build(name))
            .await
            .unwrap();
        for change in CHANGES {
            for round in seed..seed + rounds {
                match one_round(name, &component, change, &mut Random(round * 1_000 + number)).await {
                    Some(true) => done += 1,
                    Some(false) => refused += 1,
                    None => {}
                }
                println!("{name}, {change:?}, seed {round}: {done} done, {refused} refused");
            }
        }
    }
    assert!(done > 0 && refused > 0, "{done} done, {refused} refused");
}
