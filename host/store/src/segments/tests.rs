//! Tests of segments with a real database.

use crate::check::check;
use crate::testing::{Scene, note};

#[tokio::test]
async fn a_batch_adds_to_the_summaries_of_its_segments() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    for (after, count) in [(0, 1_000), (1_000, 3_000), (4_000, 5)] {
        let notes = (after..after + count).map(|n| note(n as i64)).collect();
        scene.store.commit(scene.batch(after, notes)).await.unwrap();
        assert_eq!(check(scene.store.path()).unwrap().problems, []);
    }
    assert_eq!(
        scene.query("SELECT segment, rows, untimed, time_min, time_max FROM _lantern_segment"),
        "0 1023 0 0 1022; 1 1024 0 1023 2046; 2 1024 0 2047 3070; 3 934 0 3071 4004"
    );
    assert_eq!(
        scene.query("SELECT origin, block, segment, first_sequence, last_sequence, rows FROM _lantern_segment_origin LIMIT 2"),
        "1 0 0 1 1023 1023; 1 0 1 1024 2047 1024"
    );
}
