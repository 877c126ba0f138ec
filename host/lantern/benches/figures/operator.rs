//! Measures the cost of operator actions to a host under load: version swaps, and a rebuild during live ingestion. Runs
//! in one process, with its own broker and the test plugin that has many versions.

mod load;
mod scene;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use async_nats::jetstream::Context;
use lantern_lifecycle::RebuildRequest;
use lantern_model::results::rebuild::RebuildState;

use crate::events::runtime;
use crate::evolving;
use crate::report;
use load::{Load, Resources, Seen, print_both, resources, watch};
use scene::{Scene, operator};

/// Prints the resources of the process after the swaps that warm up, and after those that are measured.
fn print_resources(swaps: [usize; 2], before: Resources, after: Resources) {
    println!(
        "  after {} swaps and after {} more: {:.1} and {:.1} MiB resident ({:+.1} %), {} and {} files, {} and {} threads",
        swaps[0],
        swaps[1],
        before.0,
        after.0,
        (after.0 / before.0 - 1.0) * 100.0,
        before.1,
        after.1,
        before.2,
        after.2
    );
}

/// Prints and reports the effect of swaps on the messages. `wrong` are the lost and the duplicated ones.
fn report_swaps(swaps: &str, wrong: [i64; 2], seen: &Seen, memory: f64) {
    let pause = seen.longest_pause.as_secs_f64() * 1e3;
    println!(
        "  longest pause between commits {pause:.1} ms, publish to commit p50 {:.2} ms, p99 {:.2} ms",
        seen.percentile(50),
        seen.percentile(99)
    );
    report::line(
        &format!(
            "{swaps}: lost, duplicated; longest pause between commits; publish to commit p99; resident memory (`-- swaps`)"
        ),
        format!(
            "{}, {}; {pause:.0} ms; {:.1} ms; {:+.1} %",
            wrong[0],
            wrong[1],
            seen.percentile(99),
            (memory - 1.0) * 100.0
        ),
    );
}

/// Swaps between two versions under a load of 5,000 messages per second.
pub fn swaps(swaps: usize) -> anyhow::Result<()> {
    const RATE: u64 = 5_000;
    runtime()?.block_on(async {
        let scene = Scene::start().await?;
        let versions = [scene.install(b'a').await?, scene.install(b'i').await?];
        scene.activate(versions[0]).await?;
        let load = Load::start(&scene.server, RATE, 1).await;
        let swap = async |count: usize| {
            for round in 1..=count {
                scene.activate(versions[round % 2]).await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        let warm_up = swaps / 4;
        let (_, ()) = watch(&scene, &load, swap(warm_up)).await?;
        let before = resources()?;
        let (seen, ()) = watch(&scene, &load, swap(swaps)).await?;
        let after = resources()?;
        let published = load.end().await?;
        scene.reach(published).await?;
        let rows = scene.query("SELECT count(*), count(DISTINCT n) FROM evolved")?;
        // Join by range; a ledger lookup for each row would take longer than the swaps.
        let astray = scene.query(
            "SELECT coalesce(sum((SELECT count(*) FROM evolved e
                 WHERE e._origin = l.origin AND e._sequence BETWEEN l.first_sequence AND l.last_sequence
                 AND e.note <> CASE p.version WHEN '1.0.0' THEN 'a' ELSE 'i' END)), 0), sum(l.rows), count(*)
             FROM _lantern_ledger l JOIN _lantern_plugin p ON p.id = l.plugin_version",
        )?;
        println!("swaps: {swaps} between two versions at {RATE} messages/s, {published} messages");
        println!(
            "  lost {}, duplicated {}; the ledger has {} ranges with {} rows, {} of them made by the other version",
            published as i64 - rows[1],
            rows[0] - rows[1],
            astray[2],
            astray[1],
            astray[0]
        );
        print_resources([warm_up, swaps], before, after);
        report_swaps(
            &format!("{swaps} swaps at {RATE} messages/s"),
            [published as i64 - rows[1], rows[0] - rows[1]],
            &seen,
            after.0 / before.0,
        );
        scene.end().await;
        Ok(())
    })
}

/// The time before an operation, for comparison.
async fn rest() -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(5)).await;
    Ok(())
}

/// Messages that make the plugin `misbehaving` do what they name.
const WORDS: [&str; 9] = [
    "loop",
    "recurse",
    "grow",
    "copy",
    "trap",
    "too-many-rows",
    "huge-text",
    "log-flood",
    "deep-json",
];

/// Measures how misbehaving guests affect the commits of a well-behaved plugin at 2,000 messages per second.
pub fn hostile() -> anyhow::Result<()> {
    const RATE: u64 = 2_000;
    runtime()?.block_on(async {
        let scene = Scene::start().await?;
        let context = scene.server.jetstream().await;
        context
            .create_stream(async_nats::jetstream::stream::Config {
                name: "EVIL".into(),
                subjects: vec!["evil.>".into()],
                ..Default::default()
            })
            .await?;
        let version = scene.install(b'a').await?;
        scene.activate(version).await?;
        let load = Load::start(&scene.server, RATE, 1).await;
        let (before, ()) = watch(&scene, &load, rest()).await?;
        let (during, (refused, handled)) = watch(&scene, &load, misbehave(&scene, &context)).await?;
        let published = load.end().await?;
        scene.reach(published).await?;
        let dead = scene.query("SELECT count(*) FROM _lantern_dead_letter")?;
        println!("hostile guests next to a plugin at {RATE} messages/s");
        println!(
            "  {refused} of 4 files refused; {} evil messages {}, {} of them dead letters",
            WORDS.len(),
            if handled { "handled" } else { "NOT ALL HANDLED" },
            dead[0]
        );
        print_both(&before, &during);
        report::line(
            &format!(
                "a plugin at {RATE} messages/s next to hostile plugins: its longest pause (`-- hostile`)"
            ),
            format!("{:.0} ms", during.longest_pause.as_secs_f64() * 1e3),
        );
        scene.end().await;
        Ok(())
    })
}

/// Installs broken files and the plugin `misbehaving`, and makes it handle [`WORDS`]. Returns the number of rejected files,
/// and whether all words were handled.
async fn misbehave(scene: &Scene, context: &Context) -> anyhow::Result<(usize, bool)> {
    let misbehaving = evolving::build("misbehaving");
    let mut refused = 0;
    for bytes in [
        Vec::new(),
        b"junk".to_vec(),
        misbehaving[..misbehaving.len() / 2].to_vec(),
        misbehaving[..8].to_vec(),
    ] {
        refused += usize::from(scene.lifecycle.install(bytes, &operator()).await.is_err());
    }
    let installed = scene.lifecycle.install(misbehaving.clone(), &operator()).await?;
    scene
        .lifecycle
        .activate("misbehaving", Some(installed.digest), &operator())
        .await?;
    for word in WORDS {
        context.publish("evil.x", word.into()).await?.await?;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let handled = || {
        let all = scene.registry.snapshot();
        all.iter()
            .any(|status| status.source == "evil" && status.checkpoint == WORDS.len() as u64)
    };
    while !handled() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok((refused, handled()))
}

/// Publishes the numbers from 1 to `rows`.
async fn publish(context: &Context, rows: u64) -> anyhow::Result<()> {
    let mut acks = VecDeque::new();
    for number in 1..=rows {
        acks.push_back(context.publish("evolve.x", number.to_string().into()).await?);
        if acks.len() > 1_000
            && let Some(ack) = acks.pop_front()
        {
            ack.await?;
        }
    }
    for ack in acks {
        ack.await?;
    }
    Ok(())
}

async fn rebuild_to_its_end(scene: &Scene) -> anyhow::Result<()> {
    let id = scene
        .lifecycle
        .rebuild("evolving", RebuildRequest::default(), &operator())
        .await?;
    loop {
        let all = scene.lifecycle.rebuilds().await?;
        let view = all
            .into_iter()
            .find(|view| view.id == id.0)
            .context("the rebuild")?;
        match view.state {
            RebuildState::Running => tokio::time::sleep(Duration::from_millis(50)).await,
            RebuildState::Done => return Ok(()),
            other => bail!("the rebuild is {other}: {view:?}"),
        }
    }
}

/// Reports a rebuild with its rate in rows per second.
fn report_rebuild(rebuilt: &str, rate: f64, before: &Seen, during: &Seen) {
    report::line(
        &format!("a rebuild of {rebuilt}: rate; live p99 before and during; longest pause (`-- rebuild`)"),
        format!(
            "{:.0},000 rows/s; {:.1} and {:.1} ms; {:.0} ms",
            rate / 1e3,
            before.percentile(99),
            during.percentile(99),
            during.longest_pause.as_secs_f64() * 1e3
        ),
    );
}

/// Rebuilds `rows` rows while 2,000 messages per second arrive.
pub fn rebuild(rows: u64) -> anyhow::Result<()> {
    const RATE: u64 = 2_000;
    runtime()?.block_on(async {
        let scene = Scene::start().await?;
        let version = scene.install(b'a').await?;
        scene.activate(version).await?;
        let context = scene.server.jetstream().await;
        publish(&context, rows).await?;
        scene.reach(rows).await?;
        let load = Load::start(&scene.server, RATE, rows + 1).await;
        let (before, ()) = watch(&scene, &load, rest()).await?;
        let digest_of =
            "SELECT count(*), sum(n * 31 + _sequence), min(_sequence = n) FROM evolved WHERE n <= ";
        let dump = scene.query(&format!("{digest_of}{rows}"))?;
        let began = Instant::now();
        let (during, ()) = watch(&scene, &load, rebuild_to_its_end(&scene)).await?;
        let took = began.elapsed().as_secs_f64();
        // The replaced tables are removed afterwards.
        let removal = async {
            let left = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND instr(name, '#')";
            let deadline = Instant::now() + Duration::from_secs(300);
            while scene.query(left)? != [0] && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        };
        let (removing, ()) = watch(&scene, &load, removal).await?;
        let published = load.end().await?;
        scene.reach(published).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let equal = scene.query(&format!("{digest_of}{rows}"))? == dump;
        let all = scene.query("SELECT count(*), count(DISTINCT n) FROM evolved")?;
        println!("rebuild: {rows} rows while {RATE} messages/s come in");
        println!(
            "  {:.0} rows/s in {took:.1} s, the rows from before are {}, lost {}, duplicated {}",
            rows as f64 / took,
            if equal { "equal" } else { "DIFFERENT" },
            published as i64 - all[1],
            all[0] - all[1]
        );
        print_both(&before, &during);
        report_rebuild(
            &format!("{rows} rows with {RATE} live messages/s"),
            rows as f64 / took,
            &before,
            &during,
        );
        println!(
            "  while the replaced tables are removed: p50 / p99 {:.2} / {:.2} ms; longest pause {:.0} ms",
            removing.percentile(50),
            removing.percentile(99),
            removing.longest_pause.as_secs_f64() * 1e3
        );
        scene.end().await;
        Ok(())
    })
}
