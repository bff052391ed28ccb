//! The monitor of a server, read as Prometheus does: plain HTTP, and a parser that is strict about the text.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::deadline::{PATIENCE, eventually};
use super::server::Server;

/// Where a server tells its metrics.
pub(crate) struct Monitor(SocketAddr);

impl Monitor {
    /// Of a server that was started with `MQCHAT_MONITOR__LISTEN`.
    pub(crate) fn of(server: &Server) -> Self {
        let listen = fs::read_to_string(server.data_dir().join("listen")).unwrap();
        let mut lines = listen.lines();
        let address = lines.find_map(|line| line.strip_prefix("http://"));
        Self(address.unwrap().parse().unwrap())
    }

    /// Connects, and says nothing.
    pub(crate) fn connect(&self) -> TcpStream {
        TcpStream::connect(self.0).unwrap()
    }

    /// Sends a head (or anything else) and reads what comes until the end.
    pub(crate) fn send(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may close before it has read everything.
        let _ = stream.write_all(request.as_bytes());
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response);
        String::from_utf8(response).unwrap()
    }

    /// Status and body of a path.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let response = self.send(&format!("GET {path} HTTP/1.1\r\nHost: monitor\r\n\r\n"));
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    /// All values, by their names with labels.
    ///
    /// # Panics
    /// If the text is not as it should be.
    pub(crate) fn scrape(&self) -> BTreeMap<String, f64> {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200);
        parse(&text)
    }

    /// One value.
    pub(crate) fn value(&self, name: &str) -> f64 {
        let values = self.scrape();
        *values
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {values:#?}"))
    }

    /// Waits until a value is as it should be.
    pub(crate) fn wait_for(&self, name: &str, good: impl Fn(f64) -> bool) {
        eventually(name, || good(self.value(name)).then_some(()));
    }
}

/// Strict: HELP, TYPE, then values of that name only; each name once, each value once; buckets that grow.
fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'));
    let mut values = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut lines = text.lines().peekable();
    while let Some(help) = lines.next() {
        let (name, _) = help
            .strip_prefix("# HELP ")
            .unwrap()
            .split_once(' ')
            .unwrap();
        assert!(families.insert(name.to_owned()), "{name} twice");
        let head = format!("# TYPE {name} ");
        let kind = lines.next().unwrap().strip_prefix(&head).unwrap();
        let mut buckets: Vec<(String, f64, f64)> = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            let (told, labels) = sample
                .strip_suffix('}')
                .map_or((sample, ""), |it| it.split_once('{').unwrap());
            for label in labels.split(',').filter(|it| !it.is_empty()) {
                let (label, quoted) = label.split_once('=').unwrap();
                assert!(label.chars().all(|it| it.is_ascii_lowercase() || it == '_'));
                assert!(quoted.len() >= 2 && quoted.starts_with('"') && quoted.ends_with('"'));
            }
            match (kind, told.strip_prefix(name).unwrap()) {
                ("counter", "") => assert!(name.ends_with("_total"), "{name}"),
                ("gauge", "") | ("histogram", "_sum") => {}
                ("histogram", "_bucket") => {
                    let (series, le) = labels.rsplit_once("le=").unwrap();
                    let le: f64 = le.trim_matches('"').parse().unwrap();
                    if let Some((known, bound, count)) = buckets.last()
                        && known == series
                    {
                        assert!(le > *bound && value >= *count, "{line}");
                    }
                    buckets.push((series.to_owned(), le, value));
                }
                ("histogram", "_count") => {
                    let (_, bound, count) = buckets.last().unwrap();
                    assert!(bound.is_infinite() && *count == value, "{line}");
                }
                other => panic!("{other:?} in {line}"),
            }
            assert!(values.insert(sample.to_owned(), value).is_none(), "{line}");
        }
    }
    values
}
