//! Lines in, lines out: for pipes, scripts and screens that cannot be painted.
//!
//! A line of standard input is a message or a command. What others write comes to standard output as on `chat/me/txt`, what is
//! wrong to standard error. At the end of the input it waits until everything is settled.

use std::collections::HashSet;
use std::fmt::Display;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::pin::Pin;
use std::time::Duration;

use client_sdk::{
    Builder, Client, Connection, Entry, Error, Event, Events, MessageId, PendingKind, Refusal,
    Target, UserId,
};
use proto::payload::escape_line;
use proto::quote::{quoted, shown};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::Failure;
use crate::clock::{self, Zone};
use crate::command::{self, Command, Entered, HELP, HISTORY_MAX};
use crate::effect::{Act, Answer, At, Effect, Listing, Page};
use crate::items::{Body, Item, Key};
use crate::model::effect;
use crate::options::Options;
use crate::text::Shown;
use crate::work::{Desk, explain, perform, resolve};

/// Longest line that is read, in bytes: what fits into a message.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Lines that wait to be looked at.
const LINES_MAX: usize = 64;
/// Events that are taken at once.
const EVENTS_MAX: usize = 256;
/// How long a new store waits for the server to tell what there is.
const FIRST_ACCOUNT: Duration = Duration::from_secs(1);
/// How long a command waits for what was written before it.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);
/// How long the beginning waits for the first connection, or for its failure.
const FIRST_CONNECTION: Duration = Duration::from_secs(10);

/// What ends the program from outside.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on they end nothing by themselves.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Chats until the end of the input, or until a signal.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn run(options: &Options, builder: Builder) -> Result<(), Failure> {
    let system = |error: io::Error| Failure::Refused(format!("signals: {error}"));
    let signals = Signals::new().map_err(system)?;
    let client = builder.open().await.map_err(|error| Failure::of(&error))?;
    let lived = live(options, &client, signals).await;
    client.close().await;
    lived
}

async fn live(options: &Options, client: &Client, mut signals: Signals) -> Result<(), Failure> {
    let failed = |error: Error| Failure::of(&error);
    let events = client.events().await.map_err(failed)?;
    let before = client.pending().await.map_err(failed)?;
    let mut lines = Lines {
        options,
        client,
        desk: Desk::new(client.clone(), Zone::of_system()),
        events,
        here: None,
        failures: 0,
        reported: before
            .iter()
            .filter(|one| one.refusal.is_some())
            .filter_map(|one| one.mid.clone())
            .collect(),
        before: before.into_iter().filter_map(|one| one.mid).collect(),
        was_offline: false,
        wanted: 0,
        printed: 0,
    };
    let end = tokio::select! {
        end = lines.run() => end,
        () = signals.next() => Ok(()),
    };
    let printed = lines.printed;
    lines
        .events
        .confirm_through(printed)
        .await
        .map_err(failed)?;
    match end {
        Ok(()) => {}
        // Who reads has gone away, and nobody is left to be told.
        Err(End::Closed) => {
            let flushed = tokio::time::timeout(options.wait(), client.flushed()).await;
            flushed.unwrap_or(Ok(())).map_err(failed)?;
        }
        Err(End::Failed(failure)) => return Err(failure),
    }
    lines.judge().await
}

/// Why it ends before the end of the input.
enum End {
    /// Nobody reads what is printed.
    Closed,
    /// It makes no sense to go on.
    Failed(Failure),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(Failure::of(&error))
    }
}

/// A line of the input.
enum Got {
    Line(String),
    /// What cannot be a message, and why.
    Bad(String),
    /// Nothing more can be read: why.
    Broken(String),
}

/// Something that a line set going.
type Doing = Pin<Box<dyn Future<Output = Result<Option<Answer>, Error>> + Send>>;

struct Lines<'a> {
    options: &'a Options,
    client: &'a Client,
    desk: Desk,
    events: Events,
    /// Where messages go.
    here: Option<Target>,
    /// Lines that were not obeyed, and messages that were refused.
    failures: usize,
    /// What waited when this began. It is another's, and stays.
    before: HashSet<MessageId>,
    /// Refusals that were told.
    reported: HashSet<MessageId>,
    was_offline: bool,
    /// Lines of a log that were asked for.
    wanted: usize,
    /// Everything up to this position of the feed was printed.
    printed: u64,
}

impl Lines<'_> {
    async fn run(&mut self) -> Result<(), End> {
        self.begin().await?;
        let mut input = read_lines();
        let mut is_open = true;
        let mut doing: Option<Doing> = None;
        let options = self.options;
        while is_open || doing.is_some() || options.follow {
            tokio::select! {
                got = input.recv(), if is_open && doing.is_none() => match got {
                    None => is_open = false,
                    Some(Got::Bad(why) | Got::Broken(why)) => self.refuse(&why),
                    Some(Got::Line(line)) => match self.obey(&line) {
                        Next::Do(effect) => doing = Some(Box::pin(carry_out(self.desk.clone(), effect))),
                        Next::Tell(answer) => self.tell(Some(answer)).await?,
                        Next::Nothing => {}
                        Next::Quit => break,
                    },
                },
                done = async { match &mut doing { Some(doing) => doing.await, None => std::future::pending().await } } => {
                    doing = None;
                    match done {
                        Ok(answer) => self.tell(answer).await?,
                        Err(error) => self.refuse(&explain(&error)),
                    }
                }
                batch = self.events.next_batch(EVENTS_MAX) => self.happened(batch?).await?,
            }
        }
        self.flush().await
    }

    /// Waits until it is known whether there is a server, so that commands see what it has to tell.
    async fn begin(&mut self) -> Result<(), End> {
        let mut patience = Box::pin(clock::sleep(FIRST_CONNECTION));
        while self.client.connection() == Connection::Connecting {
            tokio::select! {
                batch = self.events.next_batch(EVENTS_MAX) => self.happened(batch?).await?,
                () = &mut patience => break,
            }
        }
        // A new store is told what there is, and how it is called, a moment after it is connected.
        let mut patience = Box::pin(clock::sleep(FIRST_ACCOUNT));
        while self.client.connection() == Connection::Online
            && self.client.conversations().await?.is_empty()
        {
            tokio::select! {
                batch = self.events.next_batch(EVENTS_MAX) => self.happened(batch?).await?,
                () = &mut patience => break,
            }
        }
        if let Some(whom) = &self.options.to {
            let target = resolve(self.client, whom).await;
            self.here = Some(target.map_err(|why| End::Failed(Failure::Usage(why)))?);
        }
        Ok(())
    }

    /// Waits until nothing waits any more, as long as the user wants to.
    async fn flush(&mut self) -> Result<(), End> {
        let client = self.client;
        let mut flushed = Box::pin(client.flushed());
        let mut patience = Box::pin(clock::sleep(self.options.wait()));
        loop {
            tokio::select! {
                done = &mut flushed => return Ok(done?),
                () = &mut patience => return Ok(()),
                batch = self.events.next_batch(EVENTS_MAX) => self.happened(batch?).await?,
            }
        }
    }

    /// What became of it all.
    async fn judge(&mut self) -> Result<(), Failure> {
        let failed = |error: Error| Failure::of(&error);
        self.report_refusals().await.map_err(failed)?;
        let pending = self.client.pending().await.map_err(failed)?;
        let waiting = pending.iter().filter(|one| one.refusal.is_none()).count();
        if waiting > 0 {
            let fate = if self.options.is_durable() {
                "sent when this user chats here again"
            } else {
                "lost"
            };
            return Err(Failure::Refused(format!("{waiting} not sent yet: {fate}")));
        }
        match self.failures {
            0 => Ok(()),
            failures => Err(Failure::Refused(format!("{failures} not done"))),
        }
    }

    fn refuse(&mut self, why: &str) {
        self.failures += 1;
        complain(why);
    }

    fn obey(&mut self, line: &str) -> Next {
        if line.trim().is_empty() {
            return Next::Nothing;
        }
        let entered = if self.options.no_commands {
            Ok(Entered::Message(line.to_owned()))
        } else {
            command::parse(line)
        };
        let here = self.here.as_ref();
        let effect = match entered {
            Ok(Entered::Message(text)) => match here {
                Some(here) => Ok(Effect::Act(here.clone(), Act::Send(text, None))),
                None => Err("to whom? Say --to @handle, or /to @handle".to_owned()),
            },
            Ok(Entered::Command(Command::Quit)) => return Next::Quit,
            Ok(Entered::Command(Command::Help)) => {
                let line = |(name, does): &(&str, &str)| Shown::line(&format!("{name:<24}{does}"));
                let help = HELP.iter().map(line).collect();
                return Next::Tell(Answer::Told(Shown::line("Commands"), help));
            }
            Ok(Entered::Command(Command::History(count))) => match here {
                // Some entries are seen in others.
                Some(here) => {
                    self.wanted = count;
                    let entries = count.saturating_mul(2).min(HISTORY_MAX);
                    Ok(Effect::Page(here.clone(), At::Newest, entries))
                }
                None => Err("no conversation is open; /to goes to one".to_owned()),
            },
            Ok(Entered::Command(command)) => effect(command, here),
            Err(why) => Err(why),
        };
        if matches!(effect, Ok(Effect::Retry(_))) {
            // What is refused again is told again.
            self.reported.clear();
        }
        match effect {
            Ok(effect) => Next::Do(effect),
            Err(why) => {
                self.refuse(&why);
                Next::Nothing
            }
        }
    }

    async fn tell(&mut self, answer: Option<Answer>) -> Result<(), End> {
        let told = match answer {
            None | Some(Answer::Queued(..)) => return Ok(()),
            Some(Answer::Listed(listing)) => list(&listing),
            Some(Answer::Paged(_, _, page)) => self.page(&page),
            Some(Answer::Found(_, hits, _)) => joined(
                hits.iter()
                    .map(|hit| format!("{} {}", hit.cid, self.told(&hit.item))),
            ),
            Some(Answer::Told(title, lines)) => joined([title].iter().chain(&lines)),
            Some(Answer::Opened(_, target) | Answer::Made(target)) => {
                complain(format!("now in {target}"));
                self.here = Some(target);
                return Ok(());
            }
            Some(Answer::Done(word)) => {
                complain(&word);
                return Ok(());
            }
            Some(
                Answer::Failed(why)
                | Answer::NotListed(why)
                | Answer::NotFound(_, why)
                | Answer::NotOpened(_, why)
                | Answer::NoPage(_, _, why)
                | Answer::NotQueued(_, _, why),
            ) => {
                self.refuse(&why);
                return Ok(());
            }
        };
        print(told).await
    }

    fn page(&self, page: &Page) -> String {
        let items: Vec<_> = page.items.iter().chain(&page.waiting).collect();
        let older = items.len().saturating_sub(self.wanted);
        joined(items.into_iter().skip(older).map(|item| self.told(item)))
    }

    /// A line of a log, with its place.
    fn told(&self, item: &Item) -> String {
        let place = match &item.key {
            Key::At(seq) => format!("#{seq}"),
            Key::Waiting(_) => "#?".to_owned(),
        };
        let author = if item.mine {
            self.options.login()
        } else {
            item.author.as_str()
        };
        match &item.body {
            Body::Words(words) => {
                let state = match (&item.key, &words.refused) {
                    (_, Some(_)) => " (refused)",
                    (Key::Waiting(_), None) => " (waiting)",
                    _ => "",
                };
                format!("{place} {}{state}", escape_line(author, &words.raw))
            }
            Body::Note(note) => format!("{place} * {note}"),
        }
    }

    async fn happened(&mut self, batch: Vec<Event>) -> Result<(), End> {
        let me = self.client.user().await?.map(|(uid, _)| uid);
        let mut arrived = Vec::new();
        for event in batch {
            match event {
                Event::Entry(entry) => arrived.extend(self.arrived(&entry, me)),
                Event::Connection(connection) => self.connected(&connection),
                Event::Failed { .. } | Event::Refresh => self.report_refusals().await?,
                _ => {}
            }
        }
        if !arrived.is_empty() {
            print(joined(arrived)).await?;
        }
        self.printed = self.events.position();
        Ok(())
    }

    fn arrived(&self, entry: &Entry, me: Option<UserId>) -> Option<String> {
        let mine = entry.from.as_ref().is_some_and(|from| Some(from.uid) == me);
        let text = entry.text().filter(|_| !mine)?;
        let line = escape_line(&shown(entry.author()), text);
        Some(if self.options.verbose {
            format!("{} {line}", entry.cid)
        } else {
            line
        })
    }

    fn connected(&mut self, connection: &Connection) {
        match connection {
            Connection::Offline { reason } if !self.was_offline => {
                self.was_offline = true;
                complain(format!("offline: {}; what is written waits", shown(reason)));
            }
            Connection::Online if self.was_offline => {
                self.was_offline = false;
                complain("online");
            }
            _ => {}
        }
    }

    /// Tells each refusal once. What this run wrote is dropped then: whoever wrote it knows.
    async fn report_refusals(&mut self) -> Result<(), Error> {
        for pending in self.client.pending().await? {
            let (Some(mid), Some(refusal)) = (pending.mid, pending.refusal) else {
                continue;
            };
            if self.reported.insert(mid.clone()) {
                let what = match &pending.what {
                    PendingKind::Message(text) | PendingKind::Edit(text) => quoted(text),
                    _ => "an action".to_owned(),
                };
                let target = &pending.target;
                self.refuse(&format!(
                    "not sent to {target}: {what}: {}",
                    advice(refusal)
                ));
                if !self.before.contains(&mid) {
                    self.client.discard(&mid).await?;
                }
            }
        }
        Ok(())
    }
}

fn advice(refusal: Refusal) -> String {
    explain(&Error::Refused(refusal))
}

/// What a line leads to.
enum Next {
    Do(Effect),
    Tell(Answer),
    Nothing,
    Quit,
}

/// Does it: a message as soon as there is room in the outbox, everything else behind the messages before it, as far as there is
/// a connection.
async fn carry_out(desk: Desk, effect: Effect) -> Result<Option<Answer>, Error> {
    let client = &desk.client;
    let is_message = matches!(effect, Effect::Act(_, Act::Send(_, None)));
    if !is_message && client.connection() == Connection::Online {
        tokio::select! {
            done = client.flushed() => done?,
            () = clock::sleep(COMMAND_PATIENCE) => {}
        }
    }
    let Effect::Act(target, act) = effect else {
        return Ok(perform(&desk, effect).await);
    };
    loop {
        match crate::work::queue(client, &target, act.clone()).await {
            Err(error @ Error::OutboxFull(_)) => {
                let pending = client.pending().await?;
                // What was refused makes no room by itself.
                if pending.iter().all(|one| one.refusal.is_some()) {
                    return Err(error);
                }
                client.flushed().await?;
            }
            Err(error) => return Err(error),
            Ok(_) => return Ok(None),
        }
    }
}

/// Reads standard input in a thread of its own, that ends with the process: nothing else can interrupt it.
fn read_lines() -> mpsc::Receiver<Got> {
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        while let Some(got) = next_line(&mut input) {
            let is_over = matches!(got, Got::Broken(_));
            if sender.blocking_send(got).is_err() || is_over {
                return;
            }
        }
    });
    receiver
}

/// The next line, without its end; of one that is too long nothing is kept.
fn next_line(input: &mut impl BufRead) -> Option<Got> {
    let mut line = Vec::new();
    let most = LINE_BYTES_MAX as u64 + 1;
    match input.by_ref().take(most).read_until(b'\n', &mut line) {
        Ok(0) => return None,
        Ok(_) => {}
        Err(error) => return Some(Got::Broken(format!("standard input: {error}"))),
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > LINE_BYTES_MAX {
        skip_line(input);
        return Some(Got::Bad(format!(
            "a line of more than {LINE_BYTES_MAX} bytes is no message"
        )));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Some(match String::from_utf8(line) {
        Ok(line) => Got::Line(line),
        Err(_) => Got::Bad("a line that is not UTF-8 is no message".to_owned()),
    })
}

fn skip_line(input: &mut impl BufRead) {
    loop {
        let (used, is_end) = match input.fill_buf() {
            Ok([]) | Err(_) => return,
            Ok(bytes) => match bytes.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (bytes.len(), false),
            },
        };
        input.consume(used);
        if is_end {
            return;
        }
    }
}

fn list(listing: &Listing) -> String {
    let rows = listing.rows.iter();
    joined(rows.map(|row| format!("{} {} {}", row.target, row.unread, row.title)))
}

/// Lines to standard output, at once. Who reads slowly is waited for, but not by signals.
async fn print(lines: String) -> Result<(), End> {
    let write = move || {
        let mut out = io::stdout().lock();
        out.write_all(lines.as_bytes()).and_then(|()| out.flush())
    };
    match tokio::task::spawn_blocking(write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.kind() == ErrorKind::BrokenPipe => Err(End::Closed),
        Ok(Err(error)) => Err(failed_to_print(&error)),
        Err(error) => Err(failed_to_print(&error)),
    }
}

fn failed_to_print(error: &dyn Display) -> End {
    End::Failed(Failure::Refused(format!("standard output: {error}")))
}

/// As lines.
fn joined<T: Display>(lines: impl IntoIterator<Item = T>) -> String {
    lines
        .into_iter()
        .map(|line| line.to_string() + "\n")
        .collect()
}

/// A line to standard error; who does not read it does not want to know.
fn complain(word: impl Display) {
    let _ = writeln!(io::stderr(), "mqchat: {word}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_up_to_what_fits_into_a_message() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let fits = "y".repeat(LINE_BYTES_MAX);
        let input = [
            b"one\r\n\xff\n\n",
            long.as_bytes(),
            b"\n",
            fits.as_bytes(),
            b"\nlast",
        ]
        .concat();
        let mut input = input.as_slice();
        let mut got = Vec::new();
        while let Some(line) = next_line(&mut input) {
            got.push(match line {
                Got::Line(line) => line,
                Got::Bad(_) | Got::Broken(_) => "BAD".to_owned(),
            });
        }
        assert_eq!(got, ["one", "BAD", "", "BAD", &fits, "last"]);
    }
}
