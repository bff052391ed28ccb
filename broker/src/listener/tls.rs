//! TLS 1.2 and 1.3, and certificates that can change while the broker runs.
//!
//! A handshake takes the configuration that is current then; connections that are open keep theirs. Certificate files are
//! looked at every few seconds, and when the operator asks: what has changed is read, checked and used from the next
//! handshake on. If it is not good, that is said once and the old one stays.
//!
//! Sessions are resumed by tickets, whose keys are this process's, rotate every few hours, and are new with each new
//! certificate. Listeners that ask for client certificates resume none, so that each connection is judged by the
//! authorities of now.

mod identity;

use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::stream::Socket;
use crate::config::{CertificateUser, ClientCertificates, ListenerConfig};
use crate::hooks::CertificateIdentity;
use crate::metrics::Metrics;

/// A certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{file}: {source}")]
    File {
        /// Which one.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{file}: {problem}")]
    Content {
        /// Which one.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The certificate and its key do not go together, or cannot be used for another reason.
    #[error("{file}: {source}")]
    Certificate {
        /// The file of the certificate.
        file: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// The files of one listener, and what they are for.
#[derive(Clone, Debug)]
pub(super) struct Files {
    certificate: PathBuf,
    key: PathBuf,
    clients: Option<Clients>,
}

#[derive(Clone, Debug)]
struct Clients {
    authorities: PathBuf,
    revoked: Option<PathBuf>,
    required: bool,
    user: CertificateUser,
}

impl Files {
    /// The files that the listener needs; `None` if it does not speak TLS.
    pub(super) fn of(config: &ListenerConfig) -> Option<Self> {
        let asks = config.client_certificates != ClientCertificates::None;
        let clients = config
            .client_ca
            .clone()
            .filter(|_| asks)
            .map(|authorities| Clients {
                authorities,
                revoked: config.client_crl.clone(),
                required: config.client_certificates == ClientCertificates::Required,
                user: config.certificate_user,
            });
        Some(Self {
            certificate: config.certificate.clone()?,
            key: config.key.clone()?,
            clients,
        })
    }

    fn read(&self) -> Result<Contents, TlsError> {
        let read = |file: &Path| {
            fs::read(file).map_err(|source| TlsError::File {
                file: file.to_owned(),
                source,
            })
        };
        let clients = self.clients.as_ref();
        Ok(Contents {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            authorities: clients
                .map(|clients| read(&clients.authorities))
                .transpose()?,
            revoked: clients
                .and_then(|clients| clients.revoked.as_deref())
                .map(read)
                .transpose()?,
        })
    }

    fn build(&self, contents: &Contents) -> Result<ServerConfig, TlsError> {
        let chain = certificates(&self.certificate, &contents.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|error| content(&self.key, &error))?;
        let unusable = |source| TlsError::Certificate {
            file: self.certificate.clone(),
            source,
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let (Some(clients), Some(authorities)) = (&self.clients, &contents.authorities) else {
            let mut config = builder
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .map_err(unusable)?;
            config.ticketer = aws_lc_rs::Ticketer::new().map_err(unusable)?;
            return Ok(config);
        };
        let file = &clients.authorities;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(file, authorities)? {
            roots
                .add(certificate)
                .map_err(|error| content(file, &error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = match (&clients.revoked, &contents.revoked) {
            (Some(file), Some(pem)) => verifier
                .with_crls(revocation_lists(file, pem)?)
                .enforce_revocation_expiration(),
            _ => verifier,
        };
        let verifier = if clients.required {
            verifier
        } else {
            verifier.allow_unauthenticated()
        };
        let verifier = verifier.build().map_err(|error| content(file, &error))?;
        let mut config = builder
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

#[derive(Hash)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
    revoked: Option<Vec<u8>>,
}

fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| content(file, &error))?;
    if chain.is_empty() {
        return Err(content(file, &"there is no certificate in it"));
    }
    Ok(chain)
}

fn revocation_lists(
    file: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists: Result<Vec<_>, pem::Error> =
        CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let lists = lists.map_err(|error| content(file, &error))?;
    if lists.is_empty() {
        return Err(content(file, &"there is no revocation list in it"));
    }
    Ok(lists)
}

fn content(file: &Path, problem: &dyn ToString) -> TlsError {
    TlsError::Content {
        file: file.to_owned(),
        problem: problem.to_string(),
    }
}

/// The certificate of one listener.
#[derive(Debug)]
pub(super) struct Tls {
    files: Files,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// What the files were when they were last looked at, good or bad: what is bad is said once.
    seen: u64,
}

/// What a look at the files found.
enum Look {
    Unchanged,
    Replaced,
    Rejected(TlsError),
}

impl Tls {
    pub(super) fn load(files: Files) -> Result<Self, TlsError> {
        let contents = files.read()?;
        let config = Arc::new(files.build(&contents)?);
        let seen = fingerprint(&Ok(contents));
        Ok(Self {
            files,
            current: RwLock::new(Current { config, seen }),
        })
    }

    /// Shakes hands. Whoever comes with a certificate has been verified.
    pub(super) async fn accept(
        &self,
        socket: Socket,
    ) -> io::Result<(TlsStream<Socket>, Option<CertificateIdentity>)> {
        let accepting = TlsAcceptor::from(self.config()).accept_with(socket, |connection| {
            // What a stalled client leaves here counts as written: little of it, then.
            connection.set_buffer_limit(Some(BUFFER_BYTES_MAX));
        });
        let stream = match accepting.into_fallible().await {
            Ok(stream) => stream,
            Err((error, mut socket)) => {
                // The alert that says why has been written; how the connection ends changes nothing any more.
                let _ended = socket.shutdown().await;
                return Err(error);
            }
        };
        let identity = self.files.clients.as_ref().and_then(|clients| {
            let certificate = stream.get_ref().1.peer_certificates()?.first()?;
            identity::of(certificate, clients.user)
        });
        Ok((stream, identity))
    }

    fn config(&self) -> Arc<ServerConfig> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current.config)
    }

    /// Reads the files, and uses what is in them if it is new, or `again`.
    fn look(&self, again: bool) -> Look {
        let contents = self.files.read();
        let seen = fingerprint(&contents);
        let before = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            current.seen
        };
        if seen == before && !again {
            return Look::Unchanged;
        }
        let built = contents.and_then(|contents| self.files.build(&contents));
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.seen = seen;
        match built {
            Ok(config) => {
                current.config = Arc::new(config);
                Look::Replaced
            }
            Err(error) => Look::Rejected(error),
        }
    }
}

/// Tells one state of the files from another.
fn fingerprint(contents: &Result<Contents, TlsError>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match contents {
        Ok(contents) => contents.hash(&mut hasher),
        Err(error) => error.to_string().hash(&mut hasher),
    }
    hasher.finish()
}

/// The certificates of all listeners. Cheap to clone.
#[derive(Clone)]
pub struct Certificates {
    all: Arc<[Arc<Tls>]>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificates({})", self.all.len())
    }
}

impl Certificates {
    pub(super) fn new(all: Vec<Arc<Tls>>, metrics: Arc<Metrics>) -> Self {
        Self {
            all: all.into(),
            metrics,
        }
    }

    /// Reads all certificate files again. New handshakes use what is good; what is not is logged, and the certificate in
    /// use stays. Open connections are left alone.
    pub async fn reload(&self) {
        self.look(true).await;
    }

    /// Reads files that have changed, every so often, until stopped. An interval of zero: never.
    pub(crate) async fn watch(self, interval: Duration, stop: CancellationToken) {
        if self.all.is_empty() || interval.is_zero() {
            return;
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => self.look(false).await,
            }
        }
    }

    async fn look(&self, again: bool) {
        for tls in &*self.all {
            let looking = {
                let tls = Arc::clone(tls);
                tokio::task::spawn_blocking(move || tls.look(again))
            };
            let file = tls.files.certificate.display();
            match looking.await {
                Ok(Look::Unchanged) => {}
                Ok(Look::Replaced) => info!(%file, "certificate read again"),
                Ok(Look::Rejected(error)) => {
                    self.metrics.certificates_rejected.increment();
                    warn!(%error, "the new certificate is not used, the old one stays");
                }
                Err(error) => warn!(%error, %file, "the certificate could not be looked at"),
            }
        }
    }
}

/// Output that rustls keeps for a client that takes nothing.
const BUFFER_BYTES_MAX: usize = 16 * 1024;
