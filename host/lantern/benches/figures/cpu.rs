//! CPU time of the threads of this process and of the broker, from `/proc`.

use anyhow::Context;

/// The name of the store's writer thread.
const WRITER: &str = "writer";
/// The name of the thread that copies pages from the write-ahead log.
const CHECKPOINTER: &str = "checkpoint";
/// Clock ticks per second in `/proc/PID/stat`, which Linux fixes.
const TICKS: f64 = 100.0;

/// CPU time in seconds.
#[derive(Clone, Copy, Default)]
pub struct CpuTimes {
    pub writer: f64,
    pub checkpointer: f64,
    /// All other threads of this process: the client and the plugin.
    pub others: f64,
    pub broker: f64,
}

impl CpuTimes {
    /// The CPU time so far.
    pub fn now(broker: u32) -> anyhow::Result<Self> {
        let (writer, checkpointer) = (of_threads(WRITER)?, of_threads(CHECKPOINTER)?);
        Ok(Self {
            writer,
            checkpointer,
            others: of_process(std::process::id())? - writer - checkpointer,
            broker: of_process(broker)?,
        })
    }

    /// The time since `before`, in microseconds for each of `count` rows.
    pub fn per_row_since(self, before: Self, count: usize) -> Self {
        let per_row = |now: f64, before: f64| (now - before) * 1e6 / count as f64;
        Self {
            writer: per_row(self.writer, before.writer),
            checkpointer: per_row(self.checkpointer, before.checkpointer),
            others: per_row(self.others, before.others),
            broker: per_row(self.broker, before.broker),
        }
    }

    pub fn total(self) -> f64 {
        self.writer + self.checkpointer + self.others + self.broker
    }
}

/// The CPU time of the running threads with this name.
fn of_threads(name: &str) -> anyhow::Result<f64> {
    let mut seconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        // A thread may end while the folder is read.
        let Ok(comm) = std::fs::read_to_string(task.join("comm")) else {
            continue;
        };
        if comm.trim() == name {
            let times = std::fs::read_to_string(task.join("schedstat"))?;
            let nanoseconds: f64 = times.split(' ').next().context("no time in schedstat")?.parse()?;
            seconds += nanoseconds / 1e9;
        }
    }
    Ok(seconds)
}

/// The CPU time of a process with all its threads, also of those that have ended, in seconds.
pub fn of_process(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks =
        |index: usize| -> anyhow::Result<f64> { Ok(fields.get(index).context("no time in stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}
