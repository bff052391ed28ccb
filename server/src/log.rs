//! Logs: to standard error, as text for people or as JSON for machines. Never bodies, never secrets.

use std::io::IsTerminal;
use std::sync::Arc;

use proto::quote::quoted;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::reload::Handle;

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
        parse(&self.filter)
    }
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    // Alone, a misspelt level would be taken for the name of a module, of which everything is told, and of the rest nothing.
    let alone = filter.split(',').find(|directive| {
        !directive.is_empty()
            && !directive.contains('=')
            && directive.parse::<LevelFilter>().is_err()
    });
    if let Some(directive) = alone {
        return Err(format!(
            "filter: {} is no level; a module needs one, as in broker=debug",
            quoted(directive)
        ));
    }
    EnvFilter::try_new(filter).map_err(|error| {
        // It says what is wrong, but not where.
        let mut directives = filter.split(',');
        let bad = directives.find(|directive| EnvFilter::try_new(directive).is_err());
        format!("filter: {}: {error}", quoted(bad.unwrap_or(filter)))
    })
}

/// The filter of the log, which may change while the server runs.
#[derive(Clone)]
pub(crate) struct LogFilter {
    /// As configured.
    configured: String,
    replace: Arc<Replace>,
}

type Replace = dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync;

impl LogFilter {
    fn new<S: 'static>(config: &LogConfig, handle: Handle<EnvFilter, S>) -> Self {
        Self {
            configured: config.filter.clone(),
            replace: Arc::new(move |filter| {
                handle.reload(filter).map_err(|error| error.to_string())
            }),
        }
    }

    /// Of a log that was not started.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self {
            configured: String::new(),
            replace: Arc::new(|_| Ok(())),
        }
    }

    /// Another filter, until it is replaced or reset.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn set(&self, filter: &str) -> Result<(), String> {
        (self.replace)(parse(filter)?)
    }

    /// The configured one again.
    ///
    /// # Errors
    /// The log is gone.
    pub(crate) fn reset(&self) -> Result<(), String> {
        self.set(&self.configured)
    }
}

/// Starts to log.
pub(crate) fn start(config: &LogConfig) -> Result<LogFilter, Failure> {
    let filter = config.filter().map_err(Failure::Usage)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would print to standard error, and panic where that fails: on a full disk, in the task that has to stop.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let (filter, started) = match config.format {
        LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal();
            let builder = builder.with_ansi(ansi).with_filter_reloading();
            let filter = LogFilter::new(config, builder.reload_handle());
            (filter, builder.try_init())
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let filter = LogFilter::new(config, builder.reload_handle());
            (filter, builder.try_init())
        }
    };
    started.map_err(|error| Failure::Usage(format!("the log cannot be started: {error}")))?;
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_an_error_and_a_module_needs_one() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,broker=debug",
            "info,chat_plugin::store=trace",
            "info,strange_crate=off",
            "",
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good).err());
        }
        for bad in ["inof", "info,broker", "broker", "info,broker=loud"] {
            let error = parse(bad).err().unwrap();
            let culprit = bad.rsplit(',').next().unwrap();
            assert!(error.contains(culprit), "{bad}: {error}");
        }
    }
}
