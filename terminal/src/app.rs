//! The whole screen: one task that joins the terminal, the SDK and the model.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use client_sdk::{
    Builder, Client, Connection, Error, Event, Events, Pending, PendingKind, Presence, Typing,
};
use crossterm::event::{Event as TerminalEvent, EventStream};
use futures_util::StreamExt;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Failure;
use crate::clock::{self, Zone};
use crate::effect::{Answer, Effect};
use crate::line::Signals;
use crate::model::{Input, Model};
use crate::options::Options;
use crate::screen::Screen;
use crate::work::{Desk, explain, perform};

/// Answers that may wait for the model, and things that are to be put into the outbox.
const QUEUE_MAX: usize = 256;
/// Questions that may wait for the server.
const ASKED_MAX: usize = 32;
/// Events that are taken at once.
const EVENTS_MAX: usize = 256;
/// How often what ends by itself is looked after.
const TICK: Duration = Duration::from_millis(500);
/// How long the end waits for what was just written to be in the outbox.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// Chats until the user has enough.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn run(options: &Options, builder: Builder) -> Result<(), Failure> {
    // What is shown is read from the log.
    let client = builder.without_entries().open().await;
    let client = client.map_err(|error| Failure::of(&error))?;
    let lived = live(options, &client).await;
    client.close().await;
    lived
}

async fn live(options: &Options, client: &Client) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let events = client.events().await.map_err(|error| Failure::of(&error))?;
    let signals = Signals::new().map_err(|error| terminal_failed(&error))?;
    let screen = Screen::take(stop.clone()).map_err(|error| terminal_failed(&error))?;
    let zone = Zone::of_system();
    let mut model = Model::new(
        options.login(),
        zone.clone(),
        options.ascii,
        clock::now_ms(),
    );
    model.size = screen.size().map_err(|error| terminal_failed(&error))?;
    let (answers, answered) = mpsc::channel(QUEUE_MAX);
    let hands = Hands::new(Desk::new(client.clone(), zone), answers);
    let mut app = App {
        client,
        screen,
        model,
        hands,
        stop,
        is_over: false,
    };
    let first = app.model.start(options.to.as_deref());
    app.perform(first)?;
    app.input(Input::Connection(client.connection()))?;
    let done = app.run(events, answered, signals).await;
    let App { screen, hands, .. } = app;
    // The screen is given back before the last words are said, and before anything is waited for.
    drop(screen);
    let kept = hands.finish().await;
    let lost = if options.is_durable() {
        0
    } else {
        waiting(client).await
    };
    done?;
    if !kept {
        return Err(Failure::Refused(
            "what was written last may not have been kept".to_owned(),
        ));
    }
    match lost {
        0 => Ok(()),
        lost => Err(Failure::Refused(format!("{lost} not sent yet: lost"))),
    }
}

/// What waits for the server, but for marks.
async fn waiting(client: &Client) -> usize {
    let pending = client.pending().await.unwrap_or_default();
    let is_waiting = |one: &&Pending| one.refusal.is_none() && one.what != PendingKind::Mark;
    pending.iter().filter(is_waiting).count()
}

fn terminal_failed(error: &io::Error) -> Failure {
    Failure::Refused(format!("the terminal: {error}"))
}

struct App<'a> {
    client: &'a Client,
    screen: Screen,
    model: Model,
    hands: Hands,
    /// Something panicked.
    stop: CancellationToken,
    is_over: bool,
}

impl App<'_> {
    async fn run(
        &mut self,
        mut events: Events,
        mut answered: mpsc::Receiver<Answer>,
        mut signals: Signals,
    ) -> Result<(), Failure> {
        let mut keys = EventStream::new();
        let mut listens = true;
        while !self.is_over {
            let drawn = self.screen.draw(&self.model);
            drawn.map_err(|error| terminal_failed(&error))?;
            let ticks = self.model.wants_ticks();
            tokio::select! {
                key = keys.next() => match key {
                    Some(Ok(key)) => self.terminal(key)?,
                    // The terminal has gone away.
                    Some(Err(_)) | None => self.is_over = true,
                },
                Some(answer) = answered.recv() => self.input(Input::Answer(answer))?,
                batch = events.next_batch(EVENTS_MAX), if listens => match batch {
                    Ok(batch) => self.happened(batch)?,
                    Err(error) => {
                        listens = false;
                        self.ended(&error)?;
                    }
                },
                () = clock::sleep(TICK), if ticks => self.input(Input::Tick)?,
                () = signals.next() => self.is_over = true,
                () = self.stop.cancelled() => {
                    return Err(Failure::Refused("a defect of this program; what was sent is kept".to_owned()));
                }
            }
        }
        Ok(())
    }

    fn terminal(&mut self, event: TerminalEvent) -> Result<(), Failure> {
        match event {
            TerminalEvent::Key(key) => self.input(Input::Key(key)),
            TerminalEvent::Paste(text) => self.input(Input::Paste(text)),
            TerminalEvent::Resize(columns, rows) => self.input(Input::Resize(columns, rows)),
            TerminalEvent::FocusGained => self.input(Input::Focus(true)),
            TerminalEvent::FocusLost => self.input(Input::Focus(false)),
            TerminalEvent::Mouse(_) => Ok(()),
        }
    }

    fn happened(&mut self, batch: Vec<Event>) -> Result<(), Failure> {
        for event in batch {
            if let Some(input) = input(event) {
                self.input(input)?;
            }
        }
        Ok(())
    }

    /// Nothing more comes; what is here can still be read.
    fn ended(&mut self, error: &Error) -> Result<(), Failure> {
        let connection = self.client.connection();
        if matches!(
            connection,
            Connection::Online | Connection::Connecting | Connection::Offline { .. }
        ) {
            self.model.complain(&explain(error));
            return Ok(());
        }
        self.input(Input::Connection(connection))
    }

    fn input(&mut self, input: Input) -> Result<(), Failure> {
        let todo = self.model.update(clock::now_ms(), input);
        self.perform(todo)
    }

    fn perform(&mut self, todo: Vec<Effect>) -> Result<(), Failure> {
        let mut todo: std::collections::VecDeque<_> = todo.into();
        while let Some(effect) = todo.pop_front() {
            match effect {
                Effect::Quit => self.is_over = true,
                Effect::Redraw => {
                    let cleared = self.screen.clear();
                    cleared.map_err(|error| terminal_failed(&error))?;
                }
                Effect::Bell => Screen::ring().map_err(|error| terminal_failed(&error))?,
                effect => {
                    if let Some(refused) = self.hands.perform(effect) {
                        todo.extend(self.model.update(clock::now_ms(), Input::Answer(refused)));
                    }
                }
            }
        }
        Ok(())
    }
}

/// What the model wants to know of an event.
fn input(event: Event) -> Option<Input> {
    Some(match event {
        Event::Connection(connection) => Input::Connection(connection),
        Event::Conversation(cid) | Event::Receipts(cid) | Event::Updated { cid, .. } => {
            Input::Changed(cid)
        }
        Event::Sent { cid, .. } => Input::Settled(cid, None),
        Event::Failed { refusal, .. } => {
            Input::Settled(None, Some(explain(&Error::Refused(refusal))))
        }
        Event::Typing {
            cid,
            handle,
            typing,
            ..
        } => Input::Typing(cid, handle, typing != Typing::Stopped),
        Event::Presence(presence) => {
            let Presence {
                handle,
                state,
                text,
                ..
            } = presence;
            let told = if text.is_empty() {
                state
            } else {
                format!("{state}: {text}")
            };
            Input::Presence(handle, told)
        }
        Event::Refresh => Input::Refresh,
        _ => return None,
    })
}

/// Carries effects out: what goes into the outbox in its order, everything else beside each other.
struct Hands {
    desk: Desk,
    answers: mpsc::Sender<Answer>,
    writes: mpsc::Sender<Effect>,
    asked: Arc<Semaphore>,
    tasks: TaskTracker,
    writer: tokio::task::JoinHandle<()>,
}

impl Hands {
    fn new(desk: Desk, answers: mpsc::Sender<Answer>) -> Self {
        let (writes, queued) = mpsc::channel(QUEUE_MAX);
        let tasks = TaskTracker::new();
        let writer = tasks.spawn(write(desk.clone(), queued, answers.clone()));
        Self {
            desk,
            answers,
            writes,
            asked: Arc::new(Semaphore::new(ASKED_MAX)),
            tasks,
            writer,
        }
    }

    /// Begins. The answer, if it cannot.
    fn perform(&self, effect: Effect) -> Option<Answer> {
        match effect {
            Effect::Act(..) | Effect::Retry(_) | Effect::Discard(_) | Effect::Typing(..) => {
                let back = self.writes.try_send(effect).err()?.into_inner();
                Some(too_busy(back))
            }
            // The model asks for one at a time.
            Effect::List | Effect::Page(..) => {
                self.spawn(effect, None);
                None
            }
            effect => match Arc::clone(&self.asked).try_acquire_owned() {
                Ok(permit) => {
                    self.spawn(effect, Some(permit));
                    None
                }
                Err(_) => Some(too_busy(effect)),
            },
        }
    }

    fn spawn(&self, effect: Effect, permit: Option<tokio::sync::OwnedSemaphorePermit>) {
        let (desk, answers) = (self.desk.clone(), self.answers.clone());
        self.tasks.spawn(async move {
            let answer = perform(&desk, effect).await;
            if let Some(answer) = answer {
                // Closed: there is no screen any more on which it could be seen.
                let _ = answers.send(answer).await;
            }
            drop(permit);
        });
    }

    /// Waits until what was written is in the outbox. Whether it is.
    async fn finish(self) -> bool {
        let Self { writes, writer, .. } = self;
        drop(writes);
        tokio::time::timeout(LAST_WRITES, writer).await.is_ok()
    }
}

fn too_busy(effect: Effect) -> Answer {
    use crate::effect::Act;
    let why = "too much is going on; try it again".to_owned();
    match effect {
        Effect::Act(target, Act::Send(text, _)) => Answer::NotQueued(target, text, why),
        _ => Answer::Failed(why),
    }
}

async fn write(desk: Desk, mut queued: mpsc::Receiver<Effect>, answers: mpsc::Sender<Answer>) {
    while let Some(effect) = queued.recv().await {
        if let Some(answer) = perform(&desk, effect).await {
            // Closed: the rest is written all the same.
            let _ = answers.send(answer).await;
        }
    }
}
