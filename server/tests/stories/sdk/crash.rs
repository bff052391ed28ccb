//! Kills of the process that uses the SDK, and of the server: nothing is lost, nothing comes twice, nothing out of order.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use client_sdk::{Client, Draft, Event};
use tempfile::TempDir;

use super::world::{in_memory, next_texts, open, story_within};
use crate::harness::{PATIENCE, Random, Server};

/// Where the child keeps its things. Also says that this process is the child.
const FOLDER: &str = "MQCHAT_SDK_CHILD_FOLDER";
const SERVER: &str = "MQCHAT_SDK_CHILD_SERVER";
/// How often the process is killed; the server every sixth time. `MQCHAT_SDK_KILLS` for a longer campaign.
const KILLS: usize = 10;
const KILLS_VARIABLE: &str = "MQCHAT_SDK_KILLS";

fn kills() -> usize {
    let more = std::env::var(KILLS_VARIABLE);
    more.map_or(KILLS, |more| more.parse().unwrap())
}

fn patience() -> Duration {
    PATIENCE * u32::try_from(kills().div_ceil(KILLS)).unwrap()
}

/// Messages in each direction.
fn messages() -> usize {
    kills() * 12
}

/// The database of an app: one line for each entry with the position in the feed, and one for each message that was written.
struct Journal(File);

impl Journal {
    fn open(folder: &Path) -> Self {
        let path = folder.join("journal");
        Self(
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .unwrap(),
        )
    }

    /// In one write, so that a kill leaves all of it or nothing.
    fn write(&mut self, line: &str) {
        self.0.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").unwrap();
    }

    fn lines(folder: &Path) -> Vec<Vec<String>> {
        let text = fs::read_to_string(folder.join("journal")).unwrap_or_default();
        let words = |line: &str| line.split(' ').map(str::to_owned).collect();
        text.lines().map(words).collect()
    }
}

/// Not a story by itself: the process that is killed.
#[test]
#[ignore = "a process that is killed: the next story runs it, as `--exact sdk::crash::child --ignored`"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let (folder, server) = (PathBuf::from(folder), std::env::var(SERVER).unwrap());
    story_within(patience(), live(&folder, &server));
}

/// Takes what comes and writes what is still to be written, until it is killed or has done all of it.
async fn live(folder: &Path, server: &str) {
    let before = Journal::lines(folder);
    let count = |what: &str| before.iter().filter(|line| line[0] == what).count();
    let (written, mut taken) = (count("wrote"), count("took"));
    let position = before
        .iter()
        .rev()
        .find(|line| line[0] == "took")
        .map_or(0, |line| line[1].parse().unwrap());
    let mut journal = Journal::open(folder);
    let bob = open(server, "bob", Some(&folder.join("store")))
        .await
        .unwrap();
    let mut events = bob.events().await.unwrap();
    events.confirm_through(position).await.unwrap();
    journal.write("began");
    let chat = bob.direct("alice").unwrap();
    let messages = messages();
    let writing = async {
        for number in written..messages {
            let text = format!("b{number}");
            let mid = text.parse().unwrap();
            chat.send(Draft::text(text).mid(mid)).await.unwrap();
            Journal::open(folder).write(&format!("wrote {number}"));
        }
        bob.flushed().await.unwrap();
    };
    let taking = async {
        while taken < 2 * messages {
            // What a batch says goes into the journal at once, with the position behind all of it.
            let batch = events.next_batch(8).await.unwrap();
            let position = events.position();
            let mut lines = Vec::new();
            for event in batch {
                if let Event::Entry(entry) = event {
                    let text = entry.text().unwrap_or("-");
                    lines.push(format!(
                        "took {position} {} {} {text}",
                        entry.cid, entry.seq
                    ));
                }
            }
            taken += lines.len();
            if !lines.is_empty() {
                journal.write(&lines.join("\n"));
            }
        }
    };
    tokio::join!(writing, taking);
    bob.close().await;
    Journal::open(folder).write("done");
}

fn spawn(folder: &Path, server: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sdk::crash::child", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(SERVER, server)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Lets it live for so many lines of its journal; `true` if it has done all before.
fn live_for(folder: &Path, server: &str, lines: usize) -> bool {
    let mut child = Killed(spawn(folder, server));
    let out = BufReader::new(child.0.stdout.take().unwrap());
    let mut lines = out.lines().map_while(Result::ok).take(lines);
    lines.any(|line| line == "done")
}

/// Killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

#[test]
fn kills_of_client_and_server_lose_nothing_and_repeat_nothing() {
    let at = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut server = Server::in_new_directory(|launch| launch.dev().listen(&at.to_string()));
    let url = format!("mqtt://{at}");
    let folder = TempDir::new().unwrap();
    let mut random = Random::new(11);
    story_within(patience(), async {
        let alice: Client = in_memory(&server, "alice").await;
        alice.online().await.unwrap();
        let mut heard = alice.events().await.unwrap();
        in_memory(&server, "bob").await.online().await.unwrap();
        let chat = alice.direct("bob").unwrap();
        let (mut sent, mut killed) = (0, 0);
        loop {
            for _ in 0..12 {
                if sent < messages() {
                    chat.send(format!("a{sent}")).await.unwrap();
                    sent += 1;
                }
            }
            if killed % 6 == 5 {
                server.restart();
            }
            let lines = if killed < kills() {
                usize::try_from(random.below(60)).unwrap() + 4
            } else {
                usize::MAX
            };
            let (folder, url) = (folder.path().to_owned(), url.clone());
            let living = move || live_for(&folder, &url, lines);
            if tokio::task::spawn_blocking(living).await.unwrap() {
                break;
            }
            killed += 1;
            assert!(killed < 3 * kills(), "the child never ends");
        }
        while sent < messages() {
            chat.send(format!("a{sent}")).await.unwrap();
            sent += 1;
        }
        let heard = next_texts(&mut heard, 2 * messages()).await;
        for who in ["a", "b"] {
            let said: Vec<_> = heard.iter().filter(|text| text.starts_with(who)).collect();
            let wanted: Vec<_> = (0..messages())
                .map(|number| format!("{who}{number}"))
                .collect();
            assert_eq!(said, wanted.iter().collect::<Vec<_>>());
        }
    });
    let journal = Journal::lines(folder.path());
    let lives = journal.iter().filter(|line| line[0] == "began").count();
    assert!(lives > kills(), "{lives} lives");
    let mut places: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut texts = Vec::new();
    for line in journal {
        if line[0] == "took" {
            places
                .entry(line[2].clone())
                .or_default()
                .push(line[3].parse().unwrap());
            texts.push(line[4].clone());
        }
    }
    for (cid, places) in places {
        let wanted: Vec<_> = (places[0]..).take(places.len()).collect();
        assert_eq!(places, wanted, "{cid}");
    }
    let wanted: Vec<_> = (0..messages()).map(|number| format!("a{number}")).collect();
    texts.retain(|text| text.starts_with('a'));
    assert_eq!(texts, wanted);
}
