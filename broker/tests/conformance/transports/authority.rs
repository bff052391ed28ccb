//! Who issues certificates in the tests.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use broker::config::{ListenerConfig, Protocol};
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::listener;

pub(super) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in files.
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
    folder: TempDir,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            certificate: params.self_signed(&key).unwrap(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Issues a certificate in whose every part this name is.
    pub(super) fn issue(&self, name: &str) -> Issued {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let issued = Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            folder: tempfile::tempdir().unwrap(),
        };
        issued.replace(&issued.certificate, &issued.key);
        fs::write(issued.file("ca.pem"), self.certificate.pem()).unwrap();
        issued
    }

    /// Has `openssl` write the list of revoked certificates to a file, good for so many days from now.
    pub(super) fn revoke(&self, certificates: &[&Issued], days: i32, to: &Path) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let lines = certificates.iter().map(|issued| {
            let serial = issued.serial();
            format!("R\t491231000000Z\t250101000000Z\t{serial}\tunknown\t/CN=x\n")
        });
        let index: String = lines.collect();
        let database = path("index.txt");
        let config = format!(
            "[ca]\ndefault_ca = one\n[one]\ndatabase = {database}\ncrlnumber = {}\ndefault_md = sha256\n\
             crl_extensions = more\n[more]\nauthorityKeyIdentifier = keyid\n",
            path("number")
        );
        fs::write(&database, index).unwrap();
        fs::write(path("number"), "01\n").unwrap();
        fs::write(path("config"), config).unwrap();
        fs::write(path("ca.pem"), self.certificate.pem()).unwrap();
        fs::write(path("ca.key"), self.issuer.key().serialize_pem()).unwrap();
        let mut openssl = Command::new("openssl");
        openssl.args([
            "ca",
            "-gencrl",
            "-config",
            &path("config"),
            "-cert",
            &path("ca.pem"),
        ]);
        openssl.args(["-keyfile", &path("ca.key"), "-out"]).arg(to);
        if days > 0 {
            openssl.args(["-crldays", &days.to_string()]);
        } else {
            openssl.args(["-crl_lastupdate", "20200101000000Z"]);
            openssl.args(["-crl_nextupdate", "20200201000000Z"]);
        }
        let output = openssl.output().expect("openssl is installed");
        assert!(output.status.success(), "{output:?}");
    }

    /// A client that trusts this authority, perhaps with a certificate.
    pub(super) fn client(&self, certificate: Option<&Issued>) -> ClientConfig {
        self.client_of(rustls::DEFAULT_VERSIONS, certificate)
    }

    /// The same, for some versions of TLS.
    pub(super) fn client_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        certificate: Option<&Issued>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        match certificate {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let chain = vec![issued.der()];
                let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }
}

impl Issued {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    /// Puts another certificate into the files.
    pub(super) fn replace(&self, certificate: &str, key: &str) {
        fs::write(self.file("cert.pem"), certificate).unwrap();
        fs::write(self.file("key.pem"), key).unwrap();
    }

    /// A listener with this certificate; those of clients would be issued by the same authority.
    pub(super) fn tls_listener(&self, protocol: Protocol) -> ListenerConfig {
        ListenerConfig {
            certificate: Some(self.file("cert.pem")),
            key: Some(self.file("key.pem")),
            ..listener(protocol)
        }
    }

    /// In hexadecimal digits.
    fn serial(&self) -> String {
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-noout", "-serial", "-in"]);
        let output = openssl.arg(self.file("cert.pem")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().strip_prefix("serial=").unwrap().to_owned()
    }

    /// Where the list of those who are revoked is to be.
    pub(super) fn revoked(&self) -> PathBuf {
        self.file("crl.pem")
    }

    pub(super) fn authorities(&self) -> PathBuf {
        self.file("ca.pem")
    }
}

/// Opens a TLS connection.
pub(super) async fn tls(
    address: SocketAddr,
    config: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    tls_over(TcpStream::connect(address).await?, config).await
}

/// Shakes hands over an open stream.
pub(super) async fn tls_over(
    stream: TcpStream,
    config: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}
