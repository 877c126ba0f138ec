//! Threads of lower CPU priority for work that may take long and that nobody waits for: the reading and decoding of a
//! rebuild. When live messages need a processor, they get about three quarters of it.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

use super::priority::lower_priority;

/// Started with the first work, because most hosts never rebuild anything.
#[derive(Default)]
pub(super) struct BackgroundThreads(OnceLock<Option<Runtime>>);

/// A rebuild decodes on one thread while another one receives.
const THREADS: usize = 2;

impl BackgroundThreads {
    /// The runtime of these threads; the current one if they cannot be started.
    pub(super) fn handle(&self) -> Handle {
        let runtime = self.0.get_or_init(|| match start() {
            Ok(runtime) => Some(runtime),
            Err(error) => {
                tracing::warn!(%error, "failed to start background threads; rebuilds run at normal priority");
                None
            }
        });
        runtime
            .as_ref()
            .map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for BackgroundThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take().flatten() {
            // Tokio does not allow waiting for a runtime on a thread of another one.
            runtime.shutdown_background();
        }
    }
}

fn start() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("lantern-background")
        .on_thread_start(lower_priority())
        .enable_all()
        .build()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::priority::NICENESS;

    #[tokio::test]
    async fn background_threads_have_a_lower_priority() {
        let threads = BackgroundThreads::default();
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let own = niceness();
        let handle = threads.handle();
        assert_eq!(
            handle.spawn(async move { niceness() }).await.unwrap(),
            own + NICENESS
        );
        // Plugins run on blocking threads.
        let blocking = handle.spawn_blocking(niceness).await.unwrap();
        assert_eq!(blocking, own + NICENESS);
        assert_eq!(niceness(), own);
    }
}
