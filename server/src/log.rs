//! Logs: to standard error, as text for people or as JSON for machines. Never bodies, never secrets.

use std::io::IsTerminal;

use proto::quote::quoted;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::Failure;

/// Options of the log: the section `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogConfig {
    /// What to log: `error`, `warn`, `info`, `debug`, `trace`, or per module, as `info,broker=debug`.
    pub(crate) filter: String,
    /// How.
    pub(crate) format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines: one object per line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        // fjall tells of every compaction at «info».
        Self {
            filter: "info,fjall=warn,lsm_tree=warn".into(),
            format: LogFormat::Text,
        }
    }
}

impl LogConfig {
    /// Checks what the types cannot say.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.filter().map(drop)
    }

    fn filter(&self) -> Result<EnvFilter, String> {
        EnvFilter::try_new(&self.filter).map_err(|error| {
            // It says what is wrong, but not where.
            let mut directives = self.filter.split(',');
            let bad = directives.find(|directive| EnvFilter::try_new(directive).is_err());
            format!("filter: {}: {error}", quoted(bad.unwrap_or(&self.filter)))
        })
    }
}

/// Starts to log.
pub(crate) fn start(config: &LogConfig) -> Result<(), Failure> {
    let filter = config.filter().map_err(Failure::Usage)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would print to standard error, and panic where that fails: on a full disk, in the task that has to stop.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::Usage(format!("the log cannot be started: {error}")))
}
