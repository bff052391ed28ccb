//! What can go wrong while measuring; a finished measurement that found a fault is a report, not an error.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use broker::codec::decode::DecodeError;
use broker::codec::packet::{PacketType, Qos};
use broker::codec::reason::ReasonCode;
use rustix::io::Errno;

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
    #[error("subscription to {filter}: asked for {asked:?}, the broker grants {granted:?}")]
    GrantedQos {
        filter: String,
        granted: Qos,
        asked: Qos,
    },
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
    #[error("a call of the chat was not answered within 10 s: is it mqchat?")]
    NotChat,
    #[error("somebody who listens ended before the last message")]
    ListenerEnded,
    #[error("a task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Who is to blame that a measurement has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Too much was asked of the broker.
    Load,
    /// The broker is gone, or did what it must not.
    Broker,
    /// The generator, or how it was called.
    Own,
}

impl BenchError {
    /// Who is to blame.
    pub(crate) fn blame(&self) -> Blame {
        match self {
            Self::Timeout { .. } => Blame::Load,
            Self::Refused { reason, .. } | Self::Disconnected { reason, .. }
                if is_overload(*reason) =>
            {
                Blame::Load
            }
            Self::Connect { error, .. } if is_own_limit(error) => Blame::Own,
            // Of the broker: it has ended.
            Self::Process { error, .. } if error.kind() == io::ErrorKind::NotFound => Blame::Broker,
            Self::Connect { .. }
            | Self::Io { .. }
            | Self::Closed { .. }
            | Self::Decode { .. }
            | Self::Unexpected { .. }
            | Self::Refused { .. }
            | Self::SubscriptionRefused { .. }
            | Self::Disconnected { .. }
            | Self::Call { .. }
            | Self::ListenerEnded => Blame::Broker,
            _ => Blame::Own,
        }
    }

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
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            Self::Refused { reason, .. } => is_overload(*reason),
            Self::Connect { error, .. } => !is_own_limit(error),
            Self::Closed { .. } => true,
            _ => false,
        }
    }
}

const fn is_overload(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::ServerBusy
            | ReasonCode::ServerUnavailable
            | ReasonCode::ConnectionRateExceeded
            | ReasonCode::QuotaExceeded
    )
}

/// No descriptor or no port is left for a connection.
fn is_own_limit(error: &io::Error) -> bool {
    let limits = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| limits.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_is_gone_is_no_overload_and_the_own_limits_are_nobody_elses() {
        let connect = |error| BenchError::Connect {
            addr: SocketAddr::from(([127, 0, 0, 1], 1)),
            error,
        };
        let client = || "mqb-p0".to_owned();
        let refused = |reason| BenchError::Refused {
            client: client(),
            reason,
        };
        let timeout = BenchError::Timeout {
            client: client(),
            seconds: 30,
        };
        let gone = BenchError::Process {
            path: "/proc/1/stat".to_owned(),
            error: io::ErrorKind::NotFound.into(),
        };
        let all = [
            (timeout, Blame::Load),
            (refused(ReasonCode::ServerBusy), Blame::Load),
            (refused(ReasonCode::NotAuthorized), Blame::Broker),
            (BenchError::Closed { client: client() }, Blame::Broker),
            (
                connect(io::ErrorKind::ConnectionRefused.into()),
                Blame::Broker,
            ),
            (gone, Blame::Broker),
            (connect(Errno::MFILE.into()), Blame::Own),
            (BenchError::Options(String::new()), Blame::Own),
        ];
        for (error, expected) in all {
            assert_eq!(error.blame(), expected, "{error}");
        }
        assert!(!connect(Errno::MFILE.into()).is_busy());
    }
}
