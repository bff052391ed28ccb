//! What CONNECT asks for and the configuration allows (MQTT 5.0 §3.1.2, §3.2.2.3).

use std::time::Duration;

use bytestring::ByteString;

use crate::codec::packet::{Connect, Version};
use crate::codec::properties::ConnAckProperties;
use crate::config::Config;

/// The terms of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) version: Version,
    /// One and a half times the Keep Alive [MQTT-3.1.2-22]; `None`: turned off.
    pub(crate) silence_max: Option<Duration>,
    /// Seconds that the session outlives the connection; `u32::MAX`: for ever.
    pub(crate) session_expiry: u32,
    /// The longest that DISCONNECT may set.
    pub(crate) session_expiry_max: u32,
    /// Unacknowledged publishes that the client may have (5.0).
    pub(crate) receive_maximum: usize,
    /// Unacknowledged deliveries that the client and we can bear.
    pub(crate) window: usize,
    /// Bytes of ordinary messages in flight before the queue waits.
    pub(crate) inflight_bytes_max: usize,
    /// Largest packet that the client takes.
    pub(crate) packet_bytes_max: Option<u32>,
    /// Highest alias that the client may use.
    pub(crate) topic_alias_maximum: u16,
    /// Highest alias that we use.
    pub(crate) topic_alias_out_max: u16,
    /// User properties may be sent with acknowledgements [MQTT-3.1.2-29].
    pub(crate) problem_information: bool,
    /// By which method the client was authenticated, if by one (5.0).
    pub(crate) authentication_method: Option<ByteString>,
    /// Unanswered requests before reading stops.
    pub(crate) pending_max: usize,
    /// Bytes of unanswered requests before reading stops.
    pub(crate) pending_bytes_max: usize,
    /// The session is at rest: exactly once holds across a crash of the server.
    pub(crate) durable: bool,
    /// The first topic level that belongs to the plugin.
    pub(crate) root: &'static str,
}

impl Terms {
    /// The terms for a CONNECT, and what CONNACK says about them in 5.0.
    pub(crate) fn agree(
        connect: &Connect,
        config: &Config,
        root: &'static str,
    ) -> (Self, ConnAckProperties) {
        let asked = &connect.properties;
        let session_expiry = match connect.version {
            Version::V5 => asked
                .session_expiry_interval
                .unwrap_or(0)
                .min(config.session_expiry_max_s),
            Version::V311 if connect.clean_start => 0,
            Version::V311 => config.session_expiry_max_s,
        };
        let keep_alive = match connect.version {
            // None at all is longer than the longest: a client that is gone has to be noticed.
            Version::V5 if connect.keep_alive == 0 => config.keep_alive_max_s,
            Version::V5 => connect.keep_alive.min(config.keep_alive_max_s),
            // A 3.1.1 client cannot be told another value.
            Version::V311 => connect.keep_alive,
        };
        let receive_maximum = asked.receive_maximum.unwrap_or(u16::MAX);
        let terms = Self {
            version: connect.version,
            silence_max: (keep_alive > 0)
                .then(|| Duration::from_millis(u64::from(keep_alive) * 1_500)),
            session_expiry,
            session_expiry_max: config.session_expiry_max_s,
            receive_maximum: config.receive_maximum.into(),
            window: receive_maximum.min(config.inflight_max).into(),
            inflight_bytes_max: config.queue_bytes_max,
            packet_bytes_max: asked.maximum_packet_size,
            topic_alias_maximum: config.topic_alias_maximum,
            topic_alias_out_max: asked
                .topic_alias_maximum
                .unwrap_or(0)
                .min(config.topic_alias_out_max),
            problem_information: asked.request_problem_information.unwrap_or(true),
            authentication_method: asked.authentication_method.clone(),
            pending_max: config.pending_publishes_max,
            pending_bytes_max: config.pending_bytes_max,
            durable: false,
            root,
        };
        let expiry_differs = asked.session_expiry_interval.unwrap_or(0) != session_expiry;
        let properties = ConnAckProperties {
            session_expiry_interval: expiry_differs.then_some(session_expiry),
            receive_maximum: Some(config.receive_maximum),
            maximum_packet_size: Some(config.packet_bytes_max),
            topic_alias_maximum: Some(config.topic_alias_maximum).filter(|it| *it > 0),
            response_information: Some(config.response_information.as_str())
                .filter(|it| asked.request_response_information == Some(true) && !it.is_empty())
                .map(Into::into),
            authentication_method: asked.authentication_method.clone(),
            server_keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
            ..ConnAckProperties::default()
        };
        (terms, properties)
    }
}

impl Terms {
    /// Keep Alive in seconds; 0: none.
    pub(crate) fn keep_alive_s(&self) -> u64 {
        self.silence_max.map_or(0, |max| max.as_secs() * 2 / 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::properties::ConnectProperties;

    fn connect(version: Version) -> Connect {
        Connect {
            version,
            clean_start: true,
            keep_alive: 0,
            client_id: "a".into(),
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties::default(),
        }
    }

    fn agree(connect: &Connect) -> (Terms, ConnAckProperties) {
        let config = Config {
            keep_alive_max_s: 60,
            session_expiry_max_s: 100,
            ..Config::default()
        };
        Terms::agree(connect, &config, "root")
    }

    #[test]
    fn keep_alive_is_capped_in_5_0_only_and_may_be_off_in_3_1_1_only() {
        let mut asked = connect(Version::V5);
        for keep_alive in [0, 120] {
            asked.keep_alive = keep_alive;
            let (terms, properties) = agree(&asked);
            assert_eq!(terms.silence_max, Some(Duration::from_secs(90)));
            assert_eq!(properties.server_keep_alive, Some(60));
        }
        asked.version = Version::V311;
        assert_eq!(agree(&asked).0.silence_max, Some(Duration::from_mins(3)));
        asked.keep_alive = 0;
        assert_eq!(agree(&asked).0.silence_max, None);
    }

    #[test]
    fn session_expiry_is_capped_and_told() {
        let mut asked = connect(Version::V5);
        assert_eq!(agree(&asked).1.session_expiry_interval, None);
        asked.properties.session_expiry_interval = Some(u32::MAX);
        let (terms, properties) = agree(&asked);
        assert_eq!(terms.session_expiry, 100);
        assert_eq!(properties.session_expiry_interval, Some(100));
    }

    #[test]
    fn clean_session_decides_in_3_1_1() {
        let mut asked = connect(Version::V311);
        assert_eq!(agree(&asked).0.session_expiry, 0);
        asked.clean_start = false;
        assert_eq!(agree(&asked).0.session_expiry, 100);
    }

    #[test]
    fn the_smaller_window_counts() {
        let mut asked = connect(Version::V5);
        assert_eq!(agree(&asked).0.window, 256);
        asked.properties.receive_maximum = Some(3);
        assert_eq!(agree(&asked).0.window, 3);
    }
}
