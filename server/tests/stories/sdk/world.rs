//! Clients of the SDK in one line, and events with a deadline.

use std::path::Path;
use std::time::Duration;

use client_sdk::{Client, Entry, Error, Event, Events, Limits};

use crate::harness::{PATIENCE, Server};

/// Runs a story that waits.
///
/// # Panics
/// When it takes too long.
pub(super) fn story<T>(told: impl Future<Output = T>) -> T {
    story_within(PATIENCE, told)
}

/// Runs a long one.
pub(super) fn story_within<T>(patience: Duration, told: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let done = runtime.block_on(async { tokio::time::timeout(patience, told).await });
    runtime.shutdown_timeout(Duration::from_secs(5));
    done.expect("the story ends in time")
}

/// The address of a server.
pub(super) fn address(server: &Server) -> String {
    format!("mqtt://{}", server.address())
}

/// Quick to come back and to look for gaps.
pub(super) fn impatient() -> Limits {
    let mut limits = Limits::default();
    limits.reconnect_min = Duration::from_millis(20);
    limits.reconnect_max = Duration::from_millis(200);
    limits.gap_patience = Duration::from_millis(50);
    limits
}

/// A client in memory, with the password of `--dev`.
pub(super) async fn in_memory(server: &Server, handle: &str) -> Client {
    open(&address(server), handle, None).await.unwrap()
}

/// A client in a folder.
pub(super) async fn in_folder(server: &Server, handle: &str, folder: &Path) -> Client {
    open(&address(server), handle, Some(folder)).await.unwrap()
}

/// A client of a server that may not be there.
pub(super) async fn open(
    address: &str,
    handle: &str,
    folder: Option<&Path>,
) -> Result<Client, Error> {
    let builder = Client::builder(address)
        .login(handle, format!("{handle}-secret"))
        .limits(impatient());
    match folder {
        Some(folder) => builder.folder(folder).open().await,
        None => builder.open().await,
    }
}

/// The next entry, whatever comes before it.
pub(super) async fn next_entry(events: &mut Events) -> Entry {
    loop {
        if let Event::Entry(entry) = events.next().await.unwrap() {
            return entry;
        }
    }
}

/// The texts of the next messages.
pub(super) async fn next_texts(events: &mut Events, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        for event in events.next_batch(count - texts.len()).await.unwrap() {
            if let Event::Entry(entry) = event {
                texts.extend(entry.text().map(str::to_owned));
            }
        }
    }
    texts
}

/// Waits for a hint.
pub(super) async fn until(events: &mut Events, mut wanted: impl FnMut(&Event) -> bool) -> Event {
    loop {
        let event = events.next().await.unwrap();
        if wanted(&event) {
            return event;
        }
    }
}
