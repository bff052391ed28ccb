//! A filter that asks a service over HTTP: `POST` of a JSON object, answered `{"verdict":"allow"}`, `hold` or `reject`, with a
//! `reason` if there is one.
//!
//! One request on a connection of its own; redirects are not followed, since the address is the operator's. Whatever goes
//! wrong (no place, no time, another status than 200, more than 64 KiB, no sense) comes to what the operator chose.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chat_plugin::filter::{Content, ContentFilter, Policy, Verdict};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::uri::Scheme;
use hyper::rt::{Read, Write};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::FilterConfig;

/// Largest answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Largest reason that is told, in bytes.
const REASON_BYTES_MAX: usize = 256;

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
        })
    }

    async fn ask(&self, content: Content<'_>) -> Result<Answer, String> {
        let _queued = self
            .queue
            .try_acquire()
            .map_err(|_| "too many messages wait for an answer")?;
        let asked = async {
            let _place = self.places.acquire().await.map_err(|_| "closed")?;
            self.exchange(content).await
        };
        let answered = timeout(self.timeout, asked).await;
        answered.map_err(|_| "no answer in time")?
    }

    async fn exchange(&self, content: Content<'_>) -> Result<Answer, String> {
        let body = serde_json::to_string(&content).map_err(told)?;
        let request = Request::post(&self.path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(told)?;
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(told)?;
        match &self.tls {
            None => converse(TokioIo::new(stream), request).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                converse(TokioIo::new(stream.map_err(told)?), request).await
            }
        }
    }
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
        match self.ask(content).await {
            Ok(Answer { verdict, reason }) => verdict.verdict(&fitting(&reason)),
            Err(error) => {
                tracing::warn!(%error, policy = ?self.failure_policy, "the content filter gave no answer");
                self.failure_policy
                    .verdict("it could not be looked at now; try again later")
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

    #[test]
    fn a_reason_fits_into_an_ack() {
        assert_eq!(fitting("a\nb"), "ab");
        assert_eq!(fitting(""), "it is not allowed here");
        assert_eq!(fitting(&"ä".repeat(500)).len(), 256);
    }
}
