//! What can go wrong while measuring; a finished measurement that found a fault is a report, not an error.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use broker::codec::decode::DecodeError;
use broker::codec::packet::{PacketType, Qos};
use broker::codec::reason::ReasonCode;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BenchError {
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("cannot write the report: {0}")]
    Report(#[source] io::Error),
    #[error("cannot connect to {addr}: {error}")]
    Connect { addr: SocketAddr, error: io::Error },
    #[error("{client}: {error}")]
    Io { client: String, error: io::Error },
    #[error("{client}: the broker closed the connection")]
    Closed { client: String },
    #[error("{client}: no answer within {seconds} s")]
    Timeout { client: String, seconds: u64 },
    #[error("{client}: the broker broke the protocol: {error}")]
    Decode { client: String, error: DecodeError },
    #[error("{client}: unexpected {packet_type:?}")]
    Unexpected {
        client: String,
        packet_type: PacketType,
    },
    #[error("{client}: connection refused: {reason:?}")]
    Refused { client: String, reason: ReasonCode },
    #[error("{client}: subscription to {filter} refused: {reason:?}")]
    SubscriptionRefused {
        client: String,
        filter: String,
        reason: ReasonCode,
    },
    #[error("{client}: the broker disconnected: {reason:?}")]
    Disconnected { client: String, reason: ReasonCode },
    #[error("{0} is no topic filter")]
    Filter(String),
    #[error("the broker takes QoS {broker} at most, asked for {asked:?}")]
    MaximumQos { broker: u8, asked: Qos },
    #[error("a publish takes {bytes} bytes, the broker takes {limit}")]
    PacketTooLarge { bytes: usize, limit: u32 },
    #[error("{method}: {told}")]
    Call { method: &'static str, told: String },
    #[error("cannot read {path}: {error}")]
    Process { path: String, error: io::Error },
    #[error("{path} is not understood")]
    ProcessFormat { path: String },
    #[error("{0}")]
    Options(String),
    #[error("{path}: {error}")]
    File { path: String, error: io::Error },
    #[error("{place} is no history: {error}")]
    History {
        place: String,
        error: serde_json::Error,
    },
    #[error("{program} cannot be started: {error}")]
    Spawn { program: String, error: io::Error },
    #[error("a process of the checker: {0}")]
    Child(#[source] io::Error),
    #[error("the SDK: {0}")]
    Sdk(#[from] client_sdk::Error),
    #[error("the proxy: {0}")]
    Proxy(#[source] io::Error),
    #[error("{0}")]
    Check(String),
    #[error("a task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl BenchError {
    /// The system did not let it, at this path.
    pub(crate) fn at(path: &Path, error: io::Error) -> Self {
        Self::File {
            path: path.display().to_string(),
            error,
        }
    }

    /// A connection has failed or ended: whoever wants may try again.
    pub(crate) const fn is_connection(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::Io { .. }
                | Self::Closed { .. }
                | Self::Timeout { .. }
                | Self::Disconnected { .. }
                | Self::Refused { .. }
        )
    }

    /// Too many at once: worth another attempt while preparing.
    pub(crate) const fn is_busy(&self) -> bool {
        match self {
            Self::Refused { reason, .. } => matches!(
                reason,
                ReasonCode::ServerBusy
                    | ReasonCode::ServerUnavailable
                    | ReasonCode::ConnectionRateExceeded
                    | ReasonCode::QuotaExceeded
            ),
            Self::Closed { .. } | Self::Connect { .. } => true,
            _ => false,
        }
    }
}
