//! The lower CPU priority of threads whose work can wait: those of the API and of rebuilds (ADR 12).

/// Niceness of these threads relative to the rest of the host. At 5 they receive about a quarter of a contended processor:
/// ingestion has priority, and the other work still makes progress.
#[cfg(target_os = "linux")]
pub(crate) const NICENESS: i32 = 5;

/// Returns a function that lowers the CPU priority of the thread that calls it. On Linux each thread has its own priority,
/// which new threads inherit; on other systems all threads keep the same priority.
#[cfg(target_os = "linux")]
pub fn lower_priority() -> impl Fn() + Send + Sync + 'static {
    // Relative to the current niceness: an operator may have started the host with `nice`.
    let own = rustix::process::getpriority_process(None);
    move || {
        let result = own.and_then(|own| rustix::process::setpriority_process(None, own + NICENESS));
        if let Err(error) = result {
            tracing::debug!(%error, "failed to lower the priority of a thread");
        }
    }
}

/// See the function for Linux.
#[cfg(not(target_os = "linux"))]
pub fn lower_priority() -> impl Fn() + Send + Sync + 'static {
    || {}
}
