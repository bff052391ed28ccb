//! The `mqchat` server: config → build → run → drain; and the commands that look after it.
//!
//! Exit codes: 0 done; 1 a command was refused; 2 wrong usage or configuration; 3 the store cannot be opened, or could
//! not make a write durable.

mod admin;
mod cli;
mod config;
mod log;
mod serve;

use std::process::ExitCode;

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
    /// The store.
    #[error(transparent)]
    Store(#[from] chat_plugin::store::StoreError),
    /// The world failed.
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
            Self::Store(_) => 3,
        })
    }
}

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("mqchat: {failure}");
            failure.exit_code()
        }
    }
}
