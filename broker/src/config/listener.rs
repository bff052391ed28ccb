//! The options of one listener.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::network::Network;

/// A listener beside [`listen`](super::Config::listen). Options that have no meaning for its protocol are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// What is spoken there.
    pub protocol: Protocol,
    /// Address and port; port 0 takes any free one. All but `unix`.
    pub address: Option<SocketAddr>,
    /// `unix`: the file of the socket.
    pub socket: Option<PathBuf>,
    /// `unix`: who may connect, as permissions of the file. Default 0o660.
    #[serde(default = "default_mode")]
    pub mode: u32,
    /// `tls`, `wss`: PEM file with the certificate of the server and those between it and its root, in this order.
    pub certificate: Option<PathBuf>,
    /// `tls`, `wss`: PEM file with its private key.
    pub key: Option<PathBuf>,
    /// `tls`, `wss`: are clients asked for a certificate? Default `none`.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
    /// PEM file with the certificates of those who issue certificates to clients.
    pub client_ca: Option<PathBuf>,
    /// PEM file with revocation lists of those who issue certificates to clients: of each of them, or what it has issued is
    /// refused. A list whose next update is overdue refuses, too.
    pub client_crl: Option<PathBuf>,
    /// What of a client's certificate names its user. Default `common_name`.
    #[serde(default)]
    pub certificate_user: CertificateUser,
    /// `ws`, `wss`: path of the resource. Default `/mqtt`.
    pub websocket_path: Option<String>,
    /// `ws`, `wss`: web pages that may connect, by their origin (`https://chat.example.com`); `*` means all. None by
    /// default: a page that somebody happens to look at must not reach a broker in the same network. Clients that are
    /// no browsers send no origin, or one made of the address they connect to: without one they pass, and so does that
    /// one if it is an IP address or `localhost`.
    #[serde(default)]
    pub origins: Vec<String>,
    /// Each connection begins with a PROXY protocol header (version 1 or 2) of a balancer; the address in it counts.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// The balancers: connections from elsewhere are closed. Needed with `proxy_protocol`, but for `unix`.
    #[serde(default)]
    pub proxy_sources: Vec<Network>,
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// MQTT, in clear text.
    Tcp,
    /// MQTT over TLS.
    Tls,
    /// MQTT over WebSocket, in clear text.
    Ws,
    /// MQTT over WebSocket over TLS.
    Wss,
    /// MQTT over a Unix socket.
    Unix,
}

impl Protocol {
    /// Over TLS?
    pub const fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// Over WebSocket?
    pub const fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Unix => "unix",
        })
    }
}

/// Are clients asked for a certificate?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// No.
    #[default]
    None,
    /// Yes; one that is sent has to be good.
    Optional,
    /// Yes; without a good one there is no connection.
    Required,
}

/// What of a certificate names its user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateUser {
    /// The Common Name of the subject.
    #[default]
    CommonName,
    /// The Subject Alternative Name of the kind DNS name.
    Dns,
    /// The Subject Alternative Name of the kind mail address.
    Email,
    /// The Subject Alternative Name of the kind URI.
    Uri,
}

impl ListenerConfig {
    /// The defaults for a protocol: what it needs is still missing.
    pub const fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            address: None,
            socket: None,
            mode: default_mode(),
            certificate: None,
            key: None,
            client_certificates: ClientCertificates::None,
            client_ca: None,
            client_crl: None,
            certificate_user: CertificateUser::CommonName,
            websocket_path: None,
            origins: Vec::new(),
            proxy_protocol: false,
            proxy_sources: Vec::new(),
        }
    }

    /// Says what is missing, and what has no meaning here.
    pub(super) fn check(&self) -> Result<(), String> {
        let protocol = self.protocol;
        let network = protocol != Protocol::Unix;
        let tls = protocol.is_encrypted();
        let websocket = protocol.is_websocket();
        let asks = self.client_certificates != ClientCertificates::None;
        let plain_defaults = Self::new(protocol);
        // Option, is it set, may it be set, must it be set.
        let options = [
            ("address", self.address.is_some(), network, network),
            ("socket", self.socket.is_some(), !network, !network),
            ("mode", self.mode != plain_defaults.mode, !network, false),
            ("certificate", self.certificate.is_some(), tls, tls),
            ("key", self.key.is_some(), tls, tls),
            ("client_certificates", asks, tls, false),
            ("client_ca", self.client_ca.is_some(), asks, asks),
            ("client_crl", self.client_crl.is_some(), asks, false),
            (
                "certificate_user",
                self.certificate_user != plain_defaults.certificate_user,
                asks,
                false,
            ),
            (
                "websocket_path",
                self.websocket_path.is_some(),
                websocket,
                false,
            ),
            ("origins", !self.origins.is_empty(), websocket, false),
            (
                "proxy_sources",
                !self.proxy_sources.is_empty(),
                self.proxy_protocol && network,
                self.proxy_protocol && network,
            ),
        ];
        for (option, is_set, may, must) in options {
            if must && !is_set {
                return Err(format!("a {protocol} listener needs {option} here"));
            }
            if is_set && !may {
                return Err(format!("{option} has no meaning here"));
            }
        }
        if self.mode > 0o777 {
            return Err("mode must be permissions such as 0o660".to_owned());
        }
        if let Some(path) = &self.websocket_path
            && !path.starts_with('/')
        {
            return Err("websocket_path must begin with /".to_owned());
        }
        match self.origins.iter().find(|origin| !is_origin(origin)) {
            Some(origin) => Err(format!(
                "{origin:?} is no origin such as https://chat.example.com"
            )),
            None => Ok(()),
        }
    }
}

/// Scheme, host and perhaps port, as browsers send it; `null` is what pages without an origin send.
fn is_origin(text: &str) -> bool {
    let host = match text.split_once("://") {
        Some((scheme, host)) if !scheme.is_empty() => host,
        _ => return text == "*" || text == "null",
    };
    !host.is_empty() && !host.contains('/')
}

const fn default_mode() -> u32 {
    0o660
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls() -> ListenerConfig {
        ListenerConfig {
            address: Some(([0, 0, 0, 0], 8883).into()),
            certificate: Some("cert.pem".into()),
            key: Some("key.pem".into()),
            ..ListenerConfig::new(Protocol::Tls)
        }
    }

    type Change = fn(&mut ListenerConfig);

    #[test]
    fn what_is_missing_and_what_is_meaningless_is_told() {
        let unix = ListenerConfig {
            socket: Some("mqtt.sock".into()),
            ..ListenerConfig::new(Protocol::Unix)
        };
        assert_eq!(tls().check(), Ok(()));
        assert_eq!(unix.check(), Ok(()));
        let wrong: [(&str, Change); 8] = [
            ("key", |tls| tls.key = None),
            ("address", |tls| tls.address = None),
            ("origins", |tls| tls.origins = vec!["*".into()]),
            ("socket", |tls| tls.socket = Some("x".into())),
            ("client_ca", |tls| {
                tls.client_certificates = ClientCertificates::Required;
            }),
            ("client_crl", |tls| tls.client_crl = Some("crl.pem".into())),
            ("proxy_sources", |tls| tls.proxy_protocol = true),
            ("certificate_user", |tls| {
                tls.certificate_user = CertificateUser::Dns;
            }),
        ];
        for (option, change) in wrong {
            let mut config = tls();
            change(&mut config);
            let said = config.check().unwrap_err();
            assert!(said.contains(option), "{said}");
        }
    }

    #[test]
    fn origins_are_checked() {
        let check = |origin: &str| {
            let config = ListenerConfig {
                address: Some(([127, 0, 0, 1], 80).into()),
                origins: vec![origin.into()],
                ..ListenerConfig::new(Protocol::Ws)
            };
            config.check().is_ok()
        };
        for good in ["*", "null", "https://a.example", "http://localhost:3000"] {
            assert!(check(good), "{good}");
        }
        for bad in ["", "a.example", "https://", "https://a.example/", "://a"] {
            assert!(!check(bad), "{bad}");
        }
    }
}
