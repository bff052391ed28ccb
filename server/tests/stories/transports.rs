//! Stock clients over everything that carries MQTT.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use broker::codec::packet::Version;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::harness::{Launch, Login, Server, Sub, eventually, publish, python};

/// A folder with certificates and a configuration.
pub(crate) struct Site {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let folder = TempDir::with_prefix("mqchat-site-").unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        let site = Self {
            folder,
            issuer: Issuer::new(params, key),
        };
        site.issue("localhost", "server");
        site
    }

    /// Issues a certificate into `{file}.pem` and its key into `{file}.key`.
    fn issue(&self, name: &str, file: &str) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(&format!("{file}.key")), key.serialize_pem()).unwrap();
        fs::write(self.file(&format!("{file}.pem")), certificate.pem()).unwrap();
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    /// The lines of a listener that speaks TLS.
    pub(crate) fn tls(&self, protocol: &str) -> String {
        let (certificate, key) = (self.path("server.pem"), self.path("server.key"));
        format!(
            "[[broker.listeners]]\nprotocol = \"{protocol}\"\naddress = \"127.0.0.1:0\"\n\
             certificate = \"{certificate}\"\nkey = \"{key}\"\n"
        )
    }

    /// A server with this configuration, and where its listeners listen, the plain one first.
    pub(crate) fn serve(
        &self,
        config: &str,
        set: impl FnOnce(Launch) -> Launch,
    ) -> (Server, Vec<String>) {
        let file = self.file("mqchat.toml");
        fs::write(&file, config).unwrap();
        let file = file.to_str().unwrap().to_owned();
        let server =
            Server::in_new_directory(|launch| set(launch.argument("--config").argument(&file)));
        let listen = fs::read_to_string(server.data_dir().join("listen")).unwrap();
        let lines = listen.lines().map(str::to_owned).collect();
        (server, lines)
    }
}

/// The address behind `protocol://`.
pub(crate) fn address(line: &str) -> SocketAddr {
    line.split_once("://").unwrap().1.parse().unwrap()
}

/// `mosquitto_pub` to `localhost` and to oneself, with these arguments more. Did it work?
fn publishes(address: SocketAddr, arguments: &[&str]) -> bool {
    publishes_to("me", address, arguments)
}

fn publishes_to(target: &str, address: SocketAddr, arguments: &[&str]) -> bool {
    let port = address.port().to_string();
    let output = Command::new("mosquitto_pub")
        .args(["-h", "localhost", "-p", &port, "-q", "1", "-V", "mqttv5"])
        .args(["-t", &format!("chat/to/{target}"), "-m", "over TLS"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("mosquitto_pub (Debian package mosquitto-clients)");
    output.status.success()
}

#[test]
fn mosquitto_chats_over_tls() {
    let site = Site::new();
    let (server, lines) = site.serve(&site.tls("tls"), Launch::dev);
    Login::new("bob").connect(server.address()).disconnect();
    let ca = site.path("ca.pem");
    let login = ["-u", "alice", "-P", "alice-secret"];
    let tls = address(&lines[1]);
    for version in ["tlsv1.2", "tlsv1.3"] {
        let arguments = [&login[..], &["--cafile", &ca, "--tls-version", version]].concat();
        assert!(publishes_to("@bob", tls, &arguments), "{version}");
    }
    assert!(!publishes(tls, &login), "in clear text");
    let sub = Sub::start(
        server.address(),
        Version::V5,
        "bob",
        &["-t", "chat/me/txt/+", "-q", "1"],
    );
    assert_eq!(sub.next_lines(2), ["alice: over TLS"; 2]);
}

#[test]
fn a_client_certificate_is_a_login_where_it_is_configured() {
    let site = Site::new();
    site.issue("alice", "alice");
    site.issue("nobody", "nobody");
    for (asked, login, expected) in [
        ("optional", true, true),
        ("required", true, true),
        ("required", false, false),
    ] {
        let config = format!(
            "{}client_certificates = \"{asked}\"\nclient_ca = \"{}\"\n[accounts]\n\
             certificate_login = {login}\n",
            site.tls("tls"),
            site.path("ca.pem"),
        );
        let (server, lines) = site.serve(&config, |launch| launch);
        let added = server.command(&["user", "add", "alice"], "alice-secret\n");
        assert!(added.status.success(), "{added:?}");
        let tls = address(&lines[1]);
        let ca = site.path("ca.pem");
        let shown = |user: &str, more: &[&str]| {
            let (certificate, key) = (
                site.path(&format!("{user}.pem")),
                site.path(&format!("{user}.key")),
            );
            let arguments = ["--cafile", &ca, "--cert", &certificate, "--key", &key];
            publishes(tls, &[&arguments[..], more].concat())
        };
        assert_eq!(shown("alice", &[]), expected, "{asked} {login}");
        assert_eq!(shown("alice", &["-u", "alice"]), expected);
        assert!(!shown("alice", &["-u", "bob"]), "the name of another");
        assert!(!shown("alice", &["-u", "alice", "-P", "wrong"]));
        assert!(shown("alice", &["-u", "alice", "-P", "alice-secret"]));
        assert!(!shown("nobody", &[]), "users are not made by certificates");
        let password = ["--cafile", &*ca, "-u", "alice", "-P", "alice-secret"];
        assert_eq!(publishes(tls, &password), asked == "optional");
    }
}

#[test]
fn a_renewed_certificate_is_used_after_sighup() {
    let site = Site::new();
    let config = format!("[broker]\ncertificate_check_s = 0\n{}", site.tls("tls"));
    let (server, lines) = site.serve(&config, Launch::dev);
    let mut connected = Login::new("bob").connect(server.address());
    let tls = address(&lines[1]);
    let ca = site.path("ca.pem");
    let publishes = || publishes(tls, &["--cafile", &ca, "-u", "alice", "-P", "alice-secret"]);
    assert!(publishes());
    // One for another host: mosquitto_pub notices.
    site.issue("elsewhere.example", "server");
    assert!(publishes(), "nobody has asked yet");
    server.signal("HUP");
    eventually("the new certificate", || (!publishes()).then_some(()));
    fs::write(site.file("server.pem"), "rubbish").unwrap();
    server.signal("HUP");
    eventually("the complaint", || {
        server.log().contains("the old one stays").then_some(())
    });
    site.issue("localhost", "server");
    server.signal("HUP");
    eventually("the good certificate", || publishes().then_some(()));
    connected.settle();
}

#[test]
fn paho_works_over_websocket_in_both_versions() {
    let site = Site::new();
    let ca = site.path("ca.pem");
    let plain = "[[broker.listeners]]\nprotocol = \"ws\"\naddress = \"127.0.0.1:0\"\n";
    let secure = site.tls("wss");
    let certificate = [ca.as_str()];
    for (listener, trust) in [(plain, &[][..]), (secure.as_str(), &certificate)] {
        for version in ["3", "5"] {
            let (_server, lines) = site.serve(listener, Launch::dev);
            let port = address(&lines[1]).port().to_string();
            let arguments = ["localhost", &port, version, "websockets"];
            python("with_paho.py", &[&arguments, trust].concat());
        }
    }
}

#[test]
fn mosquitto_chats_over_a_unix_socket() {
    let site = Site::new();
    let socket = site.path("mqtt.sock");
    let config = format!("[[broker.listeners]]\nprotocol = \"unix\"\nsocket = \"{socket}\"\n");
    let (mut server, lines) = site.serve(&config, Launch::dev);
    assert_eq!(lines[1], format!("unix://{socket}"));
    let output = Command::new("mosquitto_pub")
        .args(["--unix", &socket, "-u", "alice", "-P", "alice-secret"])
        .args(["-q", "1", "-t", "chat/to/me", "-m", "hello"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    publish(
        server.address(),
        Version::V311,
        "alice",
        &["-t", "chat/to/me", "-m", "over TCP"],
    );
    // A leftover does not hinder the next start, and a stop leaves none.
    server.restart();
    server.terminate();
    assert!(server.wait_for_exit().success());
    assert!(!site.file("mqtt.sock").exists());
}
