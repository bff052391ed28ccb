//! A filter that asks a service over HTTP: `POST` of a JSON object, answered `{"verdict":"allow"}`, `hold` or `reject`, with a
//! `reason` if there is one.
//!
//! About the text of a presence it is not asked: it may change with each breath, and a list of words is there for it.
//!
//! One request on a connection of its own; redirects are not followed, since the address is the operator's. Whatever goes
//! wrong (no place, no time, another status than 200, more than 64 KiB, no sense) comes to what the operator chose. One user
//! has a quarter of the places: what he writes keeps nobody else waiting.

use std::collections::HashMap;
use std::future::{pending, poll_fn};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chat_plugin::clock;
use chat_plugin::filter::{Content, ContentFilter, ContentKind, Policy, Verdict};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::uri::Scheme;
use hyper::rt::{Read, Write};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use proto::ids::UserId;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::FilterConfig;

/// Largest answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Largest reason that is told, in bytes.
const REASON_BYTES_MAX: usize = 256;
/// Addresses are looked up again after this.
const ADDRESSES_FRESH: Duration = Duration::from_secs(10);
/// One user has at most this part of the places, and of the messages that wait for one.
const SHARE: usize = 4;

/// A service that judges.
pub(super) struct HttpFilter {
    host: String,
    port: u16,
    /// As the request names it.
    authority: String,
    path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
    failure_policy: Policy,
    /// Requests under way.
    places: Semaphore,
    /// Those, and messages that wait for one.
    queue: Semaphore,
    /// What of them is of one user.
    shares: Mutex<HashMap<UserId, Share>>,
    /// At most of one user: requests, and messages.
    of_user_max: (usize, usize),
    addresses: tokio::sync::Mutex<Addresses>,
}

/// What one user has under way.
struct Share {
    places: Arc<Semaphore>,
    messages: usize,
}

/// A message of a user, which counts as his until it is dropped.
struct Counted<'a> {
    shares: &'a Mutex<HashMap<UserId, Share>>,
    user: UserId,
    places: Arc<Semaphore>,
}

/// Where the service is, as far as is known.
#[derive(Default)]
struct Addresses {
    known: Option<(Vec<SocketAddr>, Instant)>,
    /// Looking up blocks a thread, also of somebody who does not wait for it any more: so there is one at a time.
    asking: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

/// Why there is no answer.
enum Failure {
    /// This user has too much under way: it is his to wait, whatever the policy.
    TooMuch,
    Service(String),
}

impl<T: ToString> From<T> for Failure {
    fn from(error: T) -> Self {
        Self::Service(error.to_string())
    }
}

/// What the service says.
#[derive(Deserialize)]
struct Answer {
    verdict: Policy,
    #[serde(default)]
    reason: String,
}

impl HttpFilter {
    /// Says what is wrong with the address, or with who vouches for it.
    pub(super) fn new(config: &FilterConfig) -> Result<Self, String> {
        let wrong = |why: &str| format!("filter: url: {why}");
        let uri: Uri = config
            .url
            .parse()
            .map_err(|error: hyper::http::uri::InvalidUri| wrong(&error.to_string()))?;
        let authority = uri.authority().ok_or_else(|| wrong("no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("user and password are not sent"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(wrong("it begins with http:// or https://")),
        };
        let tls = if is_tls {
            let name = ServerName::try_from(host.clone());
            let name = name.map_err(|error| wrong(&error.to_string()))?;
            Some((connector(config)?, name))
        } else {
            None
        };
        let places = usize::try_from(config.requests_max.max(1)).unwrap_or(Semaphore::MAX_PERMITS);
        let waiting = usize::try_from(config.queue_max).unwrap_or(Semaphore::MAX_PERMITS);
        let queue = places.saturating_add(waiting).min(Semaphore::MAX_PERMITS);
        Ok(Self {
            port: authority
                .port_u16()
                .unwrap_or(if is_tls { 443 } else { 80 }),
            authority: authority.to_string(),
            path: uri
                .path_and_query()
                .map_or_else(|| "/".to_owned(), ToString::to_string),
            host,
            tls,
            timeout: Duration::from_millis(u64::from(config.timeout_ms)),
            failure_policy: config.failure_policy,
            places: Semaphore::new(places.min(Semaphore::MAX_PERMITS)),
            queue: Semaphore::new(queue),
            shares: Mutex::default(),
            of_user_max: (places.div_ceil(SHARE), queue.div_ceil(SHARE)),
            addresses: tokio::sync::Mutex::default(),
        })
    }

    async fn ask(&self, content: Content<'_>) -> Result<Answer, Failure> {
        let counted = self.count(content.from).ok_or(Failure::TooMuch)?;
        let _queued = self
            .queue
            .try_acquire()
            .map_err(|_| "too many messages wait for an answer")?;
        let places = async {
            let own = counted.places.acquire().await?;
            Ok::<_, tokio::sync::AcquireError>((own, self.places.acquire().await?))
        };
        let placed = timeout(self.timeout, places).await;
        let _places = placed.map_err(|_| "no place in time")??;
        let answered = timeout(self.timeout, self.exchange(content)).await;
        Ok(answered.map_err(|_| "no answer in time")??)
    }

    /// `None`: the user has as much under way as one may have.
    fn count(&self, user: UserId) -> Option<Counted<'_>> {
        let (places_max, messages_max) = self.of_user_max;
        let mut shares = lock(&self.shares);
        let share = shares.entry(user).or_insert_with(|| Share {
            places: Arc::new(Semaphore::new(places_max.min(Semaphore::MAX_PERMITS))),
            messages: 0,
        });
        if share.messages >= messages_max {
            return None;
        }
        share.messages += 1;
        Some(Counted {
            shares: &self.shares,
            user,
            places: Arc::clone(&share.places),
        })
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let mut addresses = self.addresses.lock().await;
        if let Some((known, until)) = &addresses.known
            && clock::monotonic() < *until
        {
            return Ok(known.clone());
        }
        let asking = addresses.asking.get_or_insert_with(|| {
            let (host, port) = (self.host.clone(), self.port);
            tokio::task::spawn_blocking(move || {
                Ok((host.as_str(), port).to_socket_addrs()?.collect())
            })
        });
        let found = asking.await;
        addresses.asking = None;
        let found: Vec<SocketAddr> = found.map_err(told)?.map_err(told)?;
        addresses.known = Some((found.clone(), clock::monotonic() + ADDRESSES_FRESH));
        Ok(found)
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        let addresses = self.addresses().await?;
        let connected = TcpStream::connect(addresses.as_slice()).await;
        if connected.is_err() {
            self.addresses.lock().await.known = None; // it may have moved
        }
        connected.map_err(told)
    }

    async fn exchange(&self, content: Content<'_>) -> Result<Answer, String> {
        let body = serde_json::to_string(&content).map_err(told)?;
        let request = Request::post(&self.path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(told)?;
        let stream = self.connect().await?;
        match &self.tls {
            None => converse(TokioIo::new(stream), request).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                converse(TokioIo::new(stream.map_err(told)?), request).await
            }
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut shares = lock(self.shares);
        if let Some(share) = shares.get_mut(&self.user) {
            share.messages -= 1;
            if share.messages == 0 {
                shares.remove(&self.user);
            }
        }
    }
}

fn lock(shares: &Mutex<HashMap<UserId, Share>>) -> MutexGuard<'_, HashMap<UserId, Share>> {
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connector(config: &FilterConfig) -> Result<TlsConnector, String> {
    let file = config.ca_file.display();
    let wrong = |why: &dyn std::fmt::Display| format!("filter: ca_file: {file}: {why}");
    let mut roots = rustls::RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(&config.ca_file).map_err(|error| wrong(&error))?;
    for certificate in found {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"no certificate"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// One request, one answer.
async fn converse(
    stream: impl Read + Write + Unpin + Send + 'static,
    request: Request<String>,
) -> Result<Answer, String> {
    let (mut sender, connection) = http1::handshake(stream).await.map_err(told)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(told)?;
        read(response).await
    };
    // It may end before the answer was read to its end. If it ends before there is one, the sender says so.
    let driven = async {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the content filter");
        }
        pending::<Result<Answer, String>>().await
    };
    tokio::select! {
        answer = answer => answer,
        never = driven => never,
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer, String> {
    if response.status() != StatusCode::OK {
        return Err(format!("status {}", response.status()));
    }
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame.map_err(told)?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(format!("an answer of more than {ANSWER_BYTES_MAX} bytes"));
        }
        bytes.extend_from_slice(&data);
    }
    serde_json::from_slice(&bytes).map_err(told)
}

#[async_trait]
impl ContentFilter for HttpFilter {
    async fn judge(&self, content: Content<'_>) -> Verdict {
        if content.kind == ContentKind::Presence {
            return Verdict::Allow;
        }
        match self.ask(content).await {
            Ok(Answer { verdict, reason }) => verdict.verdict(&fitting(&reason)),
            Err(Failure::TooMuch) => Verdict::Failed(Policy::Reject),
            Err(Failure::Service(error)) => {
                tracing::warn!(%error, policy = ?self.failure_policy, "the content filter gave no answer");
                Verdict::Failed(self.failure_policy)
            }
        }
    }
}

/// A reason that can be told: short, without controls.
fn fitting(reason: &str) -> String {
    let visible = reason.chars().filter(|c| !c.is_control());
    let mut fitting = String::new();
    for c in visible {
        if fitting.len() + c.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        fitting.push(c);
    }
    if fitting.is_empty() {
        fitting.push_str("it is not allowed here");
    }
    fitting
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "for `map_err`, which gives the error away"
)]
fn told(error: impl ToString) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_or_https_with_a_host() {
        let made = |url: &str| {
            HttpFilter::new(&FilterConfig {
                url: url.to_owned(),
                ca_file: "/nowhere".into(),
                ..FilterConfig::default()
            })
        };
        let filter = made("http://[::1]:8080/judge?x=1").unwrap();
        assert_eq!((filter.host.as_str(), filter.port), ("::1", 8080));
        assert_eq!(filter.path, "/judge?x=1");
        assert_eq!(made("http://example.com").unwrap().port, 80);
        for (bad, why) in [
            ("ftp://example.com/", "http"),
            ("/judge", "no host"),
            ("http://a:b@example.com/", "password"),
            ("https://example.com/", "ca_file"),
        ] {
            let error = made(bad).err().unwrap();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[tokio::test]
    async fn one_user_has_a_quarter_of_the_places_and_addresses_are_looked_up_once() {
        let filter = HttpFilter::new(&FilterConfig {
            url: "http://localhost:1/".to_owned(),
            requests_max: 8,
            queue_max: 4,
            ..FilterConfig::default()
        });
        let filter = filter.unwrap();
        let [alice, bob] = [1, 2].map(|user| UserId::from_bytes([user; 16]));
        let of_alice: Vec<_> = (0..3).map(|_| filter.count(alice).unwrap()).collect();
        assert!(filter.count(alice).is_none(), "a quarter of twelve");
        assert!(filter.count(bob).is_some());
        assert_eq!(of_alice[0].places.available_permits(), 2);
        drop(of_alice);
        assert!(filter.count(alice).is_some());
        assert!(lock(&filter.shares).is_empty(), "nobody is kept");

        let found = filter.addresses().await.unwrap();
        assert!(!found.is_empty());
        let (_, until) = filter.addresses.lock().await.known.clone().unwrap();
        assert_eq!(filter.addresses().await.unwrap(), found);
        let again = filter.addresses.lock().await.known.clone().unwrap().1;
        assert_eq!(until, again, "they were known");
        assert!(filter.connect().await.is_err());
        assert!(filter.addresses.lock().await.known.is_none());
    }

    #[test]
    fn a_reason_fits_into_an_ack() {
        assert_eq!(fitting("a\nb"), "ab");
        assert_eq!(fitting(""), "it is not allowed here");
        assert_eq!(fitting(&"ä".repeat(500)).len(), 256);
    }
}
