//! TLS 1.2 and 1.3 by rustls, with the certificates that the system trusts, or those that the app names.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::Config;

pub(super) async fn connect(
    stream: TcpStream,
    config: &Config,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(config.address.host().to_owned()).map_err(invalid)?;
    let tls = if let Some(tls) = config.tls.get() {
        Arc::clone(tls)
    } else {
        // Certificates of the system are read from the disk.
        let made = config.clone();
        let made = tokio::task::spawn_blocking(move || client_config(&made)).await;
        let made = made.map_err(io::Error::other)??;
        Arc::clone(config.tls.get_or_init(|| made))
    };
    TlsConnector::from(tls).connect(name, stream).await
}

fn client_config(config: &Config) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(invalid)?
        .with_root_certificates(roots(config)?)
        .with_no_client_auth();
    Ok(Arc::new(tls))
}

fn roots(config: &Config) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if config.roots.is_empty() {
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
    } else {
        for certificate in CertificateDer::pem_slice_iter(&config.roots) {
            roots.add(certificate.map_err(invalid)?).map_err(invalid)?;
        }
    }
    if roots.is_empty() {
        return Err(invalid("no certificate to trust"));
    }
    Ok(roots)
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn invalid(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.to_string())
}
