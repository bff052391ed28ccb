//! The content filters that the configuration asks for: a list of words, and a service over HTTP.

mod http;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chat_plugin::filter::words::{LIST_BYTES_MAX, WordFilter, WordList};
use chat_plugin::filter::{ContentFilter, Filters, Policy};
use serde::{Deserialize, Serialize};

use self::http::HttpFilter;
use crate::Failure;

/// Options of the content filter: the section `[filter]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FilterConfig {
    /// A file of words and phrases, one a line; empty: none. Relative to the directory of the configuration file.
    pub(crate) words_file: PathBuf,
    /// What is done with a message that holds one of them.
    pub(crate) words_policy: Policy,
    /// Where each message is asked about, `http://` or `https://`; empty: nowhere.
    pub(crate) url: String,
    /// Who vouches for the certificate of an `https://` service: a PEM file.
    pub(crate) ca_file: PathBuf,
    /// Milliseconds that an answer may take, and before it the waiting for a place.
    pub(crate) timeout_ms: u32,
    /// What is done with a message for which no answer came.
    pub(crate) failure_policy: Policy,
    /// Requests at once.
    pub(crate) requests_max: u32,
    /// Messages that wait for a place; more are treated as if no answer had come.
    pub(crate) queue_max: u32,
}

impl Default for FilterConfig {
    fn default() -> Self {
        Self {
            words_file: PathBuf::new(),
            words_policy: Policy::Reject,
            url: String::new(),
            ca_file: PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
            timeout_ms: 2_000,
            failure_policy: Policy::Hold,
            requests_max: 32,
            queue_max: 1_024,
        }
    }
}

/// What of the filters can be read again.
#[derive(Clone, Default)]
pub(crate) struct Words {
    file: PathBuf,
    filter: Option<Arc<WordFilter>>,
}

impl Words {
    /// Reads the list again; the old one stays if that fails.
    pub(crate) fn reload(&self) {
        let Some(filter) = &self.filter else { return };
        match read(&self.file) {
            Ok(list) => {
                tracing::info!(words = list.len(), "the list of words was read");
                filter.replace(list);
            }
            Err(error) => {
                tracing::error!(%error, "the list of words cannot be read: the old one stays");
            }
        }
    }
}

/// The filters, if there are any.
///
/// # Errors
/// [`Failure::Usage`] for a list that cannot be read, or an address that makes no sense.
pub(crate) fn build(
    config: &FilterConfig,
) -> Result<(Option<Arc<dyn ContentFilter>>, Words), Failure> {
    let mut filters: Vec<Arc<dyn ContentFilter>> = Vec::new();
    let mut words = Words::default();
    if !config.words_file.as_os_str().is_empty() {
        let filter = Arc::new(WordFilter::new(
            read(&config.words_file)?,
            config.words_policy,
        ));
        words = Words {
            file: config.words_file.clone(),
            filter: Some(Arc::clone(&filter)),
        };
        filters.push(filter);
    }
    if !config.url.is_empty() {
        filters.push(Arc::new(HttpFilter::new(config).map_err(Failure::Usage)?));
    }
    if filters.is_empty() {
        return Ok((None, words));
    }
    Ok((Some(Arc::new(Filters(filters))), words))
}

/// Reads the list, with the error that names it.
pub(crate) fn read(file: &Path) -> Result<WordList, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::Usage(format!("filter: words_file: {}: {why}", file.display()))
    };
    let bytes = std::fs::metadata(file)
        .map_err(|error| wrong(&error))?
        .len();
    if bytes > LIST_BYTES_MAX as u64 {
        return Err(wrong(&format!("{bytes} bytes, at most {LIST_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
    Ok(WordList::parse(&text))
}
