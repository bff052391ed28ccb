//! The process of the server that is checked, and nothing but that process.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::error::BenchError;

/// A process that the checker started: killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) const fn new(child: Child) -> Self {
        Self { child }
    }

    pub(crate) const fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal to this process, which has not been waited for.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), BenchError> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let sent = pid.map_or(Ok(()), |pid| kill_process(pid, signal));
        sent.map_err(|error| BenchError::Check(format!("a signal could not be sent: {error}")))
    }

    /// SIGKILL, and waits for its end.
    pub(crate) fn kill(&mut self) -> Result<(), BenchError> {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        ended.map(drop).map_err(BenchError::Child)
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&mut self) -> Result<Option<ExitStatus>, BenchError> {
        self.child.try_wait().map_err(BenchError::Child)
    }

    /// Waits for its end; `None` if that takes longer.
    pub(crate) async fn wait(
        &mut self,
        patience: Duration,
    ) -> Result<Option<ExitStatus>, BenchError> {
        let clock = Clock::start();
        loop {
            let exited = self.exited()?;
            if exited.is_some() || clock.elapsed() > patience {
                return Ok(exited);
            }
            sleep(LOOK).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It may end in this moment; then there is nothing to do.
            let _ended = self.child.kill();
            let _waited = self.child.wait();
        }
    }
}

/// The server: started again and again at one address.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Process,
    log: PathBuf,
}

/// Why a server is not there.
#[derive(Debug)]
pub(crate) enum Start {
    Listens(Server),
    /// It exited, or does not listen.
    Refuses(String),
}

impl Server {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(
        mut command: Command,
        address: SocketAddr,
        log: &Path,
    ) -> Result<Start, BenchError> {
        let out = File::options().create(true).append(true).open(log);
        let out = out.map_err(|error| BenchError::at(log, error))?;
        let errors = out
            .try_clone()
            .map_err(|error| BenchError::at(log, error))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .spawn();
        let program = command.get_program().to_string_lossy().into_owned();
        let child = child.map_err(|error| BenchError::Spawn { program, error })?;
        let mut server = Self {
            process: Process::new(child),
            log: log.to_owned(),
        };
        let clock = Clock::start();
        loop {
            if let Some(status) = server.process.exited()? {
                return Ok(Start::Refuses(format!("{status}: {}", server.last_words())));
            }
            if TcpStream::connect(address).await.is_ok() {
                return Ok(Start::Listens(server));
            }
            if clock.elapsed() > PATIENCE {
                return Ok(Start::Refuses(format!(
                    "it does not listen after {PATIENCE:?}"
                )));
            }
            sleep(LOOK).await;
        }
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<_> = text.lines().rev().take(3).collect();
        last.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

const LOOK: Duration = Duration::from_millis(5);
/// Reopening a large store takes its time.
const PATIENCE: Duration = Duration::from_mins(1);
