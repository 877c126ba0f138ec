//! Property test of a plugin that fills one table from two streams: the rows do not depend on the order in which the host
//! reads the two streams, and a rebuild yields the same rows. `LANTERN_EXECUTIONS_SEED` selects another run.

use lantern_lifecycle::RebuildRequest;

use super::rebuild_property::{Random, number};
use super::*;

/// Executions in one run.
const EXECUTIONS: usize = 150;
/// Alternating intervals in which the host reads only starts or only results.
const ROUNDS: u64 = 8;

/// The messages of one execution in the order of their stream: the interval, and a number that the message contains.
#[derive(Default)]
struct Execution {
    starts: Vec<(u64, u64)>,
    results: Vec<(u64, u64)>,
}

impl Execution {
    fn random(random: &mut Random) -> Self {
        let mut execution = Self::default();
        for messages in [&mut execution.starts, &mut execution.results] {
            for _ in 0..random.next(4) {
                messages.push((random.next(ROUNDS), random.next(1_000)));
            }
            messages.sort_by_key(|(round, _)| *round);
        }
        execution
    }

    /// The row that the first start and the first result determine; none without messages.
    fn row(&self, id: usize) -> Option<String> {
        let start = self.starts.first().map(|(_, mark)| mark);
        let result = self.results.first().map(|(_, mark)| mark);
        // A column that both messages have.
        let both = |name: &str| match (start, result) {
            (Some(mark), _) => format!("{name}{mark}"),
            (None, mark) => mark.map_or_else(String::new, |mark| format!("{name}{mark}r")),
        };
        // A column that a start always has, and a result with an odd number.
        let optional = |name: &str| match (start, result) {
            (None, Some(mark)) if mark % 2 == 0 => "null".to_owned(),
            _ => both(name),
        };
        let of = |mark: Option<&u64>, name: &str| {
            mark.map_or_else(|| "null".to_owned(), |mark| format!("{name}{mark}"))
        };
        start.or(result)?;
        let values = [
            format!("x{id:03}"),
            both("q"),
            optional("e"),
            both("p"),
            of(result, ""),
            of(result, "out"),
            optional("j"),
            of(start, "v"),
        ];
        Some(values.join("|"))
    }
}

fn start(id: usize, mark: u64) -> String {
    let message = serde_json::json!({
        "result_id": format!("x{id:03}"), "request_id": format!("q{mark}"), "exec_id": format!("e{mark}"),
        "pc_id": format!("p{mark}"), "started_at": "2026-05-01T10:00:00Z", "manifest_id": format!("j{mark}"),
        "version": format!("v{mark}"),
    });
    message.to_string()
}

fn result(id: usize, mark: u64) -> String {
    let mut message = serde_json::json!({
        "result_id": format!("x{id:03}"), "request_id": format!("q{mark}r"), "pc_id": format!("p{mark}r"),
        "exit_code": mark, "stdout": format!("out{mark}"), "stderr": "", "started_at": "2026-05-01T10:00:00Z",
        "finished_at": "2026-05-01T10:00:01Z",
    });
    if mark % 2 == 1 {
        message["exec_id"] = format!("e{mark}r").into();
        message["manifest_id"] = format!("j{mark}r").into();
    }
    message.to_string()
}

/// Publishes the messages of one interval and waits until the host has stored their rows.
async fn publish_interval(scene: &Scene, subject: &str, source: &str, messages: Vec<String>) {
    let before = scene.status(source).map_or(0, |status| status.checkpoint);
    let end = before + messages.len() as u64;
    scene.publish_to(subject, messages).await;
    scene
        .wait("the messages of the interval", |scene| {
            scene
                .status(source)
                .is_some_and(|status| status.checkpoint == end)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_two_streams_do_not_depend_on_their_order() {
    let seed = number("LANTERN_EXECUTIONS_SEED").unwrap_or(1);
    let random = &mut Random(seed);
    let executions: Vec<Execution> = (0..EXECUTIONS).map(|_| Execution::random(random)).collect();
    let all = || executions.iter().enumerate();
    let mut scene = Scene::with_executions().await;
    for round in 0..ROUNDS {
        let starts = all().flat_map(|(id, one)| one.starts.iter().map(move |message| (id, message)));
        let starts = starts.filter(|(_, (at, _))| *at == round);
        let starts = starts.map(|(id, (_, mark))| start(id, *mark)).collect();
        publish_interval(&scene, "events.started.p", "events", starts).await;
        let results = all().flat_map(|(id, one)| one.results.iter().map(move |message| (id, message)));
        let results = results.filter(|(_, (at, _))| *at == round);
        let results = results.map(|(id, (_, mark))| result(id, *mark)).collect();
        publish_interval(&scene, "results.p", "results", results).await;
    }
    let expected: Vec<String> = all().filter_map(|(id, one)| one.row(id)).collect();
    let rows = |scene: &Scene| {
        scene.query(
            "SELECT result_id, request_id, exec_id, pc_id, exit_code, stdout, job_id, version FROM execution_results
             ORDER BY 1",
        )
    };
    assert_eq!(rows(&scene), expected, "seed {seed}");

    let times = "SELECT result_id, recorded_at FROM execution_results ORDER BY 1";
    let live = scene.query(times);
    let id = scene
        .lifecycle()
        .rebuild("executions", RebuildRequest::default(), &operator())
        .await
        .unwrap();
    let done = scene.wait_for_rebuild(id).await.unwrap();
    assert_eq!(done.state, RebuildState::Done, "seed {seed}: {done:?}");
    assert_eq!(rows(&scene), expected, "seed {seed}");
    assert_eq!(scene.query(times), live, "seed {seed}");
    scene.close().await;
    scene.sound();
}
