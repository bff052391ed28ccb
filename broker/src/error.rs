//! What can go wrong for whoever runs the broker.

use std::io;

use crate::config::ConfigError;
use crate::listener::TlsError;

/// The broker cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// A certificate cannot be used.
    #[error("certificate: {0}")]
    Certificate(#[from] TlsError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// As configured.
        address: String,
        /// What the system says.
        source: io::Error,
    },
}
