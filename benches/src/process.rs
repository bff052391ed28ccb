//! What a process has used, from `/proc` (Linux).

use std::time::Duration;

use crate::error::BenchError;

/// Linux tells CPU time to user space in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// A process of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pid: String,
}

impl Process {
    pub(crate) fn new(pid: u32) -> Self {
        Self {
            pid: pid.to_string(),
        }
    }

    /// This program.
    pub(crate) fn own() -> Self {
        Self {
            pid: "self".to_owned(),
        }
    }

    /// What the system calls it; nothing if there is no such process.
    pub(crate) fn name(&self) -> Option<String> {
        let (_, name) = self.read("comm").ok()?;
        Some(name.trim().to_owned())
    }

    /// CPU time of all its threads, in user space and in the kernel.
    pub(crate) fn cpu(&self) -> Result<Duration, BenchError> {
        let (path, stat) = self.read("stat")?;
        // The second field is the name in parentheses and may contain blanks.
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let ticks = |index: usize| after_name.split(' ').nth(index)?.parse::<u32>().ok();
        match (ticks(11), ticks(12)) {
            (Some(user), Some(system)) => Ok(TICK * user + TICK * system),
            _ => Err(BenchError::ProcessFormat { path }),
        }
    }

    /// Resident memory in KB of 1,024 bytes.
    pub(crate) fn rss_kb(&self) -> Result<u64, BenchError> {
        let (path, status) = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
            .ok_or(BenchError::ProcessFormat { path })
    }

    /// Bytes that it has had written to disks, in whole pages.
    pub(crate) fn disk_bytes(&self) -> Result<u64, BenchError> {
        let (path, io) = self.read("io")?;
        let line = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes:"));
        line.and_then(|line| line.trim().parse().ok())
            .ok_or(BenchError::ProcessFormat { path })
    }

    fn read(&self, name: &str) -> Result<(String, String), BenchError> {
        let path = format!("/proc/{}/{name}", self.pid);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok((path, text)),
            Err(error) => Err(BenchError::Process { path, error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_no_more_than_its_age_of_cpu() {
        let own = Process::own();
        assert!(own.rss_kb().unwrap() > 100);
        assert!(own.cpu().unwrap() < Duration::from_mins(10));
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(Process::new(u32::MAX).cpu().is_err());
    }
}
