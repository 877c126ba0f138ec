//! Measures one plugin written in several languages: size, load time with and without the cache, memory and throughput.
//! Prints the outcomes of a few messages to show that all variants behave the same. `cargo xtask languages` builds the
//! plugins and runs this example.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lantern_model::batch::{Delivery, Outcome};
use lantern_plugin::{Compiler, EngineConfig, Loader, Projector, encode};

/// Messages per call, as from a busy source.
const BATCH: u64 = 1_000;
/// Duration of the throughput measurement.
const MEASURED: Duration = Duration::from_secs(3);
const MIB: f64 = 1_048_576.0;

fn main() -> anyhow::Result<()> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let cache = tempfile::tempdir()?;
    println!(
        "| plugin | file MiB | compiled MiB | load, cold ms | load, cached ms | memory MiB | messages/s |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let mut words = Vec::new();
    for file in &files {
        words.push(measure(Path::new(file), cache.path())?);
    }
    println!();
    for (file, outcomes) in files.iter().zip(&words) {
        println!("{file}");
        for outcome in outcomes {
            println!("  {outcome}");
        }
    }
    Ok(())
}

fn loader(cache: &Path) -> anyhow::Result<Loader> {
    let config = EngineConfig {
        cache_dir: Some(cache.to_owned()),
        ..EngineConfig::new(Compiler::InProcess)
    };
    Ok(Loader::new(config, [1; 32])?)
}

/// Prints one line of the table and returns the outcomes of a few messages.
fn measure(file: &Path, cache: &Path) -> anyhow::Result<Vec<String>> {
    let mut bytes = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    if bytes.starts_with(b"\0asm\x01\0\0\0") {
        bytes = encode(&bytes)?;
    }
    let load = || -> anyhow::Result<_> {
        let loader = loader(cache)?;
        let began = Instant::now();
        Ok((loader.load(&bytes)?, began.elapsed()))
    };
    let (_, cold) = load()?;
    let (plugin, cached) = load()?;
    let mut projector = plugin.projector();

    let few = [
        r#"{"sensor":"a","at":"2026-05-28T10:41:00Z","celsius":22,"place":"Küche","extra":{"b":0.5}}"#,
        r#"{"sensor":"a","at":"noon","celsius":1.5}"#,
        r#"{"sensor":"a","at":"2026-05-28T10:41:00Z","celsius":-300}"#,
        r#"{"at":"2026-05-28T10:41:00Z","celsius":1}"#,
        "no JSON",
    ];
    let deliveries: Vec<Delivery> = (1..)
        .zip(few)
        .map(|(sequence, text)| delivery(sequence, text))
        .collect();
    let outcomes = projector
        .project(0, &deliveries, Duration::from_secs(60))
        .outcomes;
    let words = outcomes.iter().map(describe).collect();

    let messages_per_second = throughput(&mut projector).with_context(|| file.display().to_string())?;
    let facts = plugin.facts();
    println!(
        "| {} | {:.2} | {:.1} | {} | {} | {:.1} | {:.0} |",
        plugin.manifest().name,
        facts.component_bytes as f64 / MIB,
        facts.code_bytes as f64 / MIB,
        cold.as_millis(),
        cached.as_millis(),
        facts.memory_bytes as f64 / MIB,
        messages_per_second
    );
    Ok(words)
}

/// Projects one batch repeatedly. Returns messages per second.
fn throughput(projector: &mut Projector) -> anyhow::Result<f64> {
    let batch: Vec<Delivery> = (1..=BATCH)
        .map(|sequence| {
            let text = format!(
                r#"{{"sensor":"roof-{}","at":"2026-05-28T10:41:{:02}.{sequence:06}Z","celsius":21.5,"place":"roof","extra":{{"n":{sequence}}}}}"#,
                sequence % 50,
                sequence % 60
            );
            delivery(sequence, &text)
        })
        .collect();
    let (mut count, began) = (0, Instant::now());
    while began.elapsed() < MEASURED {
        let projected = projector.project(0, &batch, Duration::from_secs(60));
        let rows = |outcome: &Outcome| matches!(outcome, Outcome::Rows(rows) if rows.len() == 2);
        anyhow::ensure!(projected.outcomes.iter().all(rows), "not all outcomes are rows");
        count += projected.outcomes.len();
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

fn delivery(sequence: u64, text: &str) -> Delivery {
    Delivery {
        subject: "reading.roof".to_owned(),
        sequence,
        published_ns: 1_000_000_000,
        headers: Vec::new(),
        payload: text.as_bytes().to_vec().into(),
    }
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Rows(rows) => format!("{} rows", rows.len()),
        Outcome::Skip => "skip".to_owned(),
        Outcome::Reject(rejection) => format!("{}: {}", rejection.class.as_str(), rejection.reason),
    }
}
