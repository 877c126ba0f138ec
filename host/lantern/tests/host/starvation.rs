//! Tests a consumer that does not deliver although the stream holds messages, and whose heartbeats show no loss.

use super::*;
use crate::host::plugin_folder;
use crate::starving_line::StarvingLine;

#[test]
fn a_consumer_that_does_not_deliver_is_replaced_within_a_minute() {
    let server = NatsServer::start();
    let line = StarvingLine::to(server.port());
    let (dir, plugins) = (tempfile::tempdir().unwrap(), plugin_folder(&["obs-events"]));
    let host = Host::start(dir.path(), &line.url(), plugins.path());
    running(&host, "obs");
    publish(&server, &obs(1, 10));
    wait_for_rows(&host, dir.path(), "obs_events", 10);
    let consumer = || {
        run(async {
            let stream = server.jetstream().await.get_stream("OBS_EVENTS").await.unwrap();
            stream.consumer_info("lantern-obs-events-obs").await.unwrap()
        })
    };
    let before = consumer();
    let last = before.delivered.consumer_sequence.to_string();
    host.wait("a heartbeat after the last delivery", LIMIT, |_| {
        line.last_delivery() == last
    });
    line.starve();
    publish(&server, &obs(11, 10));
    host.wait("the consumer is replaced", LIMIT, |_| line.is_whole());
    wait_for_rows(&host, dir.path(), "obs_events", 20);
    assert_ne!(consumer().created, before.created);
    assert_eq!(host.projection("obs")["epoch"], 1);
    host.terminate();
    sound(dir.path());
}
