//! Metrics and health over HTTP, on a listener of its own: `/metrics` in the text form of Prometheus, `/health` (the
//! process lives), `/ready` (it takes messages; 503 and why, if not).
//!
//! Nothing secret is told, and nobody logs in: who reaches the address may read. A few connections at once, one request
//! each, small heads, little time; bodies are not read.

mod families;
mod text;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker::metrics::Commits;
use broker::operator::Operator;
use chat_plugin::accounts::Accounts;
use chat_plugin::plugin::ChatPlugin;
use chat_plugin::store::{ChatStore, Health};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::serve::Stores;

/// Options of the monitor: the section `[monitor]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MonitorConfig {
    /// Address and port of `/metrics`, `/health` and `/ready`; absent: there is no such listener. Port 0 takes a free one.
    pub(crate) listen: Option<SocketAddr>,
}

/// Where everything that is told comes from.
pub(crate) struct Sources {
    pub(crate) broker: Arc<broker::Metrics>,
    pub(crate) operator: Operator,
    pub(crate) plugin: Arc<ChatPlugin>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) store: Arc<dyn ChatStore>,
    /// Of the sessions at rest, if there are any.
    pub(crate) sessions: Option<Arc<Commits>>,
    pub(crate) stores: Stores,
}

/// A monitor that listens, and does not answer yet.
pub(crate) struct Monitor {
    listener: TcpListener,
    address: SocketAddr,
}

impl Monitor {
    /// Listens.
    ///
    /// # Errors
    /// The address cannot be had.
    pub(crate) fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            address: listener.local_addr()?,
            listener: TcpListener::from_std(listener)?,
        })
    }

    /// Where it listens, with the port that port 0 became.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until stopped.
    pub(crate) async fn run(
        self,
        sources: Arc<Sources>,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let accept = async || {
            // Never closed: without a place there is an accept less to try.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            let (stream, _) = self.listener.accept().await?;
            std::io::Result::Ok((stream, place))
        };
        loop {
            let accepted = tokio::select! {
                accepted = accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, place)) => {
                    let (sources, stop) = (Arc::clone(&sources), stop.clone());
                    tracker.spawn(async move {
                        tokio::select! {
                            () = serve(stream, &sources) => {}
                            () = stop.cancelled() => {}
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the monitor does not accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// One request.
async fn serve(stream: TcpStream, sources: &Sources) {
    let answer =
        |request: Request<Incoming>| async move { Ok::<_, Infallible>(answer(&request, sources)) };
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    match timeout(TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a request to the monitor failed"),
        Err(_) => tracing::debug!("a client of the monitor took too long"),
    }
}

fn answer(request: &Request<Incoming>, sources: &Sources) -> Response<String> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned());
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let mut response = plain(StatusCode::OK, families::told(sources));
            let form = HeaderValue::from_static(text::CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, form);
            response
        }
        "/health" => plain(StatusCode::OK, "ok\n".to_owned()),
        "/ready" => match readiness(sources) {
            Ok(()) => plain(StatusCode::OK, "ready\n".to_owned()),
            Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        _ => plain(
            StatusCode::NOT_FOUND,
            "/metrics /health /ready\n".to_owned(),
        ),
    }
}

/// Does the server take messages? Why not, if not.
fn readiness(sources: &Sources) -> Result<(), String> {
    match sources.stores.health() {
        Health::Ready if sources.operator.is_serving() => Ok(()),
        Health::Ready => Err("the listeners are not up: starting or stopping".to_owned()),
        Health::ReadOnly(why) => Err(format!("the store is read-only: {why}")),
        Health::Poisoned(why) => Err(format!("a write could not be made durable: {why}")),
    }
}

fn plain(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let form = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, form);
    response
}

/// Connections at once; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 16;
/// Of one request.
const HEADERS_MAX: usize = 64;
/// Of one request: the least that the library takes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// For the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For all of a connection.
const TIMEOUT: Duration = Duration::from_secs(15);
/// After a failed accept (too many open files), before the next one.
const PAUSE: Duration = Duration::from_millis(100);
