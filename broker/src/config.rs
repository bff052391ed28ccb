//! The options of the broker: one struct, each field with its unit and its default.

mod listener;
mod network;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::listener::{CertificateUser, ClientCertificates, ListenerConfig, Protocol};
pub use self::network::{Network, NotANetwork};

/// What an operator can set. Unknown names are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port of the plain TCP listener; `off` (`None`): there is none. Port 0 takes any free one. Default
    /// `127.0.0.1:1883`: passwords cross this port in clear text, so that other machines are let in on purpose only.
    #[serde(with = "address_or_off")]
    pub listen: Option<SocketAddr>,
    /// Further listeners: TLS, WebSocket, Unix sockets, more TCP. Default: none.
    pub listeners: Vec<ListenerConfig>,
    /// Seconds between two looks at the certificate files; changed ones are read again. 0: only when asked to.
    /// Default 10.
    pub certificate_check_s: u32,
    /// Milliseconds from accept to CONNACK: TLS, WebSocket and PROXY protocol handshakes and authentication included.
    /// Default 10,000.
    pub connect_timeout_ms: u64,
    /// Largest packet accepted before CONNECT is authenticated, in bytes, fixed header included. Default 16,384.
    pub packet_bytes_before_auth_max: u32,
    /// Largest packet accepted, in bytes, fixed header included; announced in 5.0. Default 262,144.
    pub packet_bytes_max: u32,
    /// Open network connections. Default 100,000.
    pub connections_max: usize,
    /// Open network connections of one address (IPv6: of one /64 network). Default 20,000: whole offices and mobile
    /// networks come from one address.
    pub connections_per_address_max: usize,
    /// Accept MQTT 3.1 (`MQIsdp`) too, and treat it as 3.1.1. Default false.
    pub mqtt31: bool,
    /// What a 5.0 client that asks for Response Information is told: where topics for answers begin, by agreement with the
    /// access rules. Default empty: nothing.
    pub response_information: String,
    /// Longest Keep Alive in seconds; a 5.0 client that asks for more is told this one. Turning the mechanism off (0)
    /// remains possible. Default 3,600.
    pub keep_alive_max_s: u16,
    /// Longest Session Expiry Interval in seconds, and that of 3.1.1 sessions without Clean Session; 4,294,967,295 means
    /// for ever. Default 7,776,000 (90 days).
    pub session_expiry_max_s: u32,
    /// Receive Maximum of the server: QoS 1 and 2 publishes that a 5.0 client may have unacknowledged. Default 256.
    pub receive_maximum: u16,
    /// Unacknowledged deliveries of one connection; the client's Receive Maximum may be lower. Default 256.
    pub inflight_max: u16,
    /// Topic aliases that a 5.0 client may use. Default 32.
    pub topic_alias_maximum: u16,
    /// Topic aliases that the server uses towards a 5.0 client; the client's Topic Alias Maximum may be lower. Default 16.
    pub topic_alias_out_max: u16,
    /// Unanswered publishes, subscribes and releases of one connection before it is read no further. Default 1,024.
    pub pending_publishes_max: usize,
    /// Bytes of them before the connection is read no further. Default 1,048,576.
    pub pending_bytes_max: usize,
    /// PUBLISH packets per second of one connection; 0, the default: no limit. Each connection is bounded by what is
    /// acknowledged anyway; what is too much depends on the clients.
    pub connection_publishes_per_s: u32,
    /// PUBLISH packets that a connection may send at once after a rest; 0, the default: those of one second.
    pub connection_publishes_burst: u32,
    /// Bytes per second of one connection, all packets counted; 0, the default: no limit.
    pub connection_bytes_per_s: u32,
    /// Bytes that a connection may send at once after a rest; 0, the default: those of one second.
    pub connection_bytes_burst: u32,
    /// What happens to a connection that sends more. Default: slow.
    pub over_rate: OverRate,
    /// Connections per second of one address (IPv6: of one /64 network); a further CONNECT is refused with 0x9F (3.1.1:
    /// code 3). 0, the default: no limit. After a restart all clients behind one address come back at once.
    pub address_connects_per_s: u32,
    /// Connections of one address at once after a rest; 0, the default: those of one second.
    pub address_connects_burst: u32,
    /// Subscriptions of one session to ordinary topics. Default 1,000.
    pub subscriptions_max: usize,
    /// Levels of an ordinary topic filter. Default 200.
    pub filter_levels_max: usize,
    /// Ordinary messages that wait for one session; then new ones are dropped and counted. Default 10,000.
    pub queue_messages_max: usize,
    /// Bytes of ordinary messages that wait for one session; then new ones are dropped and counted. As many may be in flight
    /// beside them. Default 16,777,216.
    pub queue_bytes_max: usize,
    /// Sessions kept for clients that are away; then the one that expires first goes. Default 100,000.
    pub sessions_kept_max: usize,
    /// Retained messages. A further topic is refused (5.0) or not retained (3.1.1), and counted. Default 100,000.
    pub retained_messages_max: usize,
    /// Bytes of all retained messages. Default 268,435,456.
    pub retained_bytes_max: usize,
    /// What outlives the process, and what PUBACK means for it. Default `always`.
    pub persistence: Persistence,
    /// No further messages are kept for persistent sessions, or retained, when the files of the sessions occupy so many
    /// bytes of disk, before it is full; 0: no limit. Read by whoever opens the sessions. Default 0.
    pub sessions_disk_bytes_max: u64,
    /// Seconds between two looks at the statistics in `$SYS/broker/…`; 0: there are none. Default 10.
    pub sys_interval_s: u64,
    /// Milliseconds without progress after which a write to a stalled client ends its connection. Default 30,000.
    pub write_timeout_ms: u64,
    /// Seconds without progress after which a client that takes nothing counts as slow: a warning in the log. 0: never.
    /// Default 5.
    pub slow_client_s: u64,
    /// Output buffer of one connection in bytes; while it is full, nothing more is read from or pulled for the client.
    /// Default 65,536.
    pub output_bytes_max: usize,
    /// Milliseconds for the client to read a last DISCONNECT or CONNACK and to close. Default 1,000.
    pub close_timeout_ms: u64,
    /// Milliseconds at shutdown for unanswered publishes to be answered. Default 10,000.
    pub drain_timeout_ms: u64,
}

/// What happens to a connection that sends more than its rates allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverRate {
    /// It is read no further until it is in time again: nothing is lost, but what it acknowledges waits as well.
    #[default]
    Slow,
    /// Publishes to ordinary topics are refused: 0x97 in 5.0; at QoS 0 and in 3.1.1, which can tell no refusal, they are
    /// dropped. Those of the plugin are slowed down.
    Refuse,
}

/// What of ordinary messages outlives the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Persistence {
    /// PUBACK (PUBREC at QoS 2) means: durable for every persistent session that matched and had room, and as the retained
    /// message. SUBACK to a persistent session: the subscription is durable. Exactly once holds across a crash between
    /// persistent sessions. Publishes that concern clean sessions only wait for nothing.
    #[default]
    Always,
    /// Nothing: sessions, retained messages and wills end with the process.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 1883))),
            listeners: Vec::new(),
            certificate_check_s: 10,
            connect_timeout_ms: 10_000,
            packet_bytes_before_auth_max: 16 * 1024,
            packet_bytes_max: 256 * 1024,
            connections_max: 100_000,
            connections_per_address_max: 20_000,
            mqtt31: false,
            response_information: String::new(),
            keep_alive_max_s: 3_600,
            session_expiry_max_s: 90 * 24 * 3_600,
            receive_maximum: 256,
            inflight_max: 256,
            topic_alias_maximum: 32,
            topic_alias_out_max: 16,
            pending_publishes_max: 1_024,
            pending_bytes_max: 1024 * 1024,
            connection_publishes_per_s: 0,
            connection_publishes_burst: 0,
            connection_bytes_per_s: 0,
            connection_bytes_burst: 0,
            over_rate: OverRate::Slow,
            address_connects_per_s: 0,
            address_connects_burst: 0,
            subscriptions_max: 1_000,
            filter_levels_max: 200,
            queue_messages_max: 10_000,
            queue_bytes_max: 16 * 1024 * 1024,
            sessions_kept_max: 100_000,
            retained_messages_max: 100_000,
            retained_bytes_max: 256 * 1024 * 1024,
            persistence: Persistence::Always,
            sessions_disk_bytes_max: 0,
            sys_interval_s: 10,
            write_timeout_ms: 30_000,
            slow_client_s: 5,
            output_bytes_max: 64 * 1024,
            close_timeout_ms: 1_000,
            drain_timeout_ms: 10_000,
        }
    }
}

/// The broker cannot work with an option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is too small.
    #[error("{option} must be at least {min}")]
    TooSmall {
        /// Its name.
        option: &'static str,
        /// The least that works.
        min: u64,
    },
    /// The options of a listener contradict each other.
    #[error("listeners, number {number}: {problem}")]
    Listener {
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong.
        problem: String,
    },
    /// Nobody could connect.
    #[error("listen is off, and there are no listeners")]
    NoListener,
}

impl Config {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first option that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let as_u64 = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let floors = [
            ("connect_timeout_ms", self.connect_timeout_ms, 1),
            (
                "packet_bytes_before_auth_max",
                self.packet_bytes_before_auth_max.into(),
                64,
            ),
            ("packet_bytes_max", self.packet_bytes_max.into(), 64),
            ("connections_max", as_u64(self.connections_max), 1),
            (
                "connections_per_address_max",
                as_u64(self.connections_per_address_max),
                1,
            ),
            ("keep_alive_max_s", self.keep_alive_max_s.into(), 1),
            ("receive_maximum", self.receive_maximum.into(), 1),
            ("inflight_max", self.inflight_max.into(), 1),
            (
                "pending_publishes_max",
                as_u64(self.pending_publishes_max),
                1,
            ),
            ("pending_bytes_max", as_u64(self.pending_bytes_max), 1),
            ("queue_messages_max", as_u64(self.queue_messages_max), 1),
            ("queue_bytes_max", as_u64(self.queue_bytes_max), 1),
            ("write_timeout_ms", self.write_timeout_ms, 1),
            ("output_bytes_max", as_u64(self.output_bytes_max), 1_024),
        ];
        if let Some((option, _, min)) = floors.into_iter().find(|(_, value, min)| value < min) {
            return Err(ConfigError::TooSmall { option, min });
        }
        if self.listen.is_none() && self.listeners.is_empty() {
            return Err(ConfigError::NoListener);
        }
        for (listener, number) in self.listeners.iter().zip(1..) {
            listener
                .check()
                .map_err(|problem| ConfigError::Listener { number, problem })?;
        }
        Ok(())
    }

    /// All listeners, the simple one first.
    pub(crate) fn all_listeners(&self) -> Vec<ListenerConfig> {
        let plain = self.listen.map(|address| ListenerConfig {
            address: Some(address),
            ..ListenerConfig::new(Protocol::Tcp)
        });
        plain
            .into_iter()
            .chain(self.listeners.iter().cloned())
            .collect()
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn sys_interval(&self) -> Option<Duration> {
        (self.sys_interval_s > 0).then(|| Duration::from_secs(self.sys_interval_s))
    }

    pub(crate) fn certificate_check(&self) -> Duration {
        Duration::from_secs(self.certificate_check_s.into())
    }

    pub(crate) fn slow_client(&self) -> Option<Duration> {
        (self.slow_client_s > 0).then(|| Duration::from_secs(self.slow_client_s))
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }

    pub(crate) fn close_timeout(&self) -> Duration {
        Duration::from_millis(self.close_timeout_ms)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

/// An address, or `off`.
mod address_or_off {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    const OFF: &str = "off";

    #[expect(
        clippy::ref_option,
        reason = "serde hands over a reference to the field"
    )]
    pub(super) fn serialize<S: Serializer>(
        address: &Option<SocketAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(OFF),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == OFF {
            return Ok(None);
        }
        let wrong = |_| de::Error::custom("neither an address with a port nor \"off\"");
        text.parse().map(Some).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_accepted() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn an_option_that_is_too_small_is_named() {
        let config = Config {
            receive_maximum: 0,
            ..Config::default()
        };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "receive_maximum must be at least 1"
        );
    }

    #[test]
    fn somebody_has_to_listen() {
        let mut config = Config {
            listen: None,
            ..Config::default()
        };
        assert_eq!(config.check(), Err(ConfigError::NoListener));
        config.listeners.push(ListenerConfig::new(Protocol::Tcp));
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "listeners, number 1: a tcp listener needs address here"
        );
    }
}
