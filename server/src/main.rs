//! The `mqchat` server: config → build → run → drain; the commands that look after it; and the terminal client.
//!
//! Exit codes (`docs/operations.md`): 0 done; 1 refused, or the system did not let it; 2 wrong usage or configuration; 3 a
//! write could not be made durable: start again; 4 the store cannot be opened; 130 ended by a second signal.

mod acl;
mod admin;
mod cli;
mod config;
mod filter;
mod import;
mod log;
mod monitor;
mod offline;
mod serve;
mod time;

use std::path::PathBuf;
use std::process::ExitCode;

use chat_plugin::store::StoreError;
use clap::Parser;

/// glibc keeps what password hashing used, 20 MB per hash and thread, for ever.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why the program ends without having done what was asked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The command was refused.
    #[error("{0}")]
    Refused(String),
    /// The configuration or the command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A write could not be made durable: what is in the store counts, and a restart finds out.
    #[error("a write could not be made durable: {0}")]
    Poisoned(String),
    /// The store cannot be opened, or not be worked on.
    #[error("the store in {directory}: {error}")]
    Store {
        /// Where it is.
        directory: PathBuf,
        /// What is wrong with it.
        error: StoreError,
    },
    /// The system did not let it.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        error: std::io::Error,
    },
}

impl Failure {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Refused(_) | Self::Io { .. } => 1,
            Self::Usage(_) => 2,
            Self::Poisoned(_) => 3,
            Self::Store { .. } => 4,
        })
    }
}

#[cfg(feature = "chat")]
impl From<terminal::Failure> for Failure {
    fn from(failure: terminal::Failure) -> Self {
        match failure {
            terminal::Failure::Usage(why) => Self::Usage(why),
            failure => Self::Refused(failure.to_string()),
        }
    }
}

fn main() -> ExitCode {
    #[cfg(feature = "faults")]
    if let Ok(fault) = std::env::var("PLANTED_FAULT") {
        eprintln!("mqchat: a promise is broken on purpose: {fault}");
        broker::faults::plant(fault);
    }
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("mqchat: {failure}");
            failure.exit_code()
        }
    }
}
