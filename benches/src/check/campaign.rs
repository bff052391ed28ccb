//! One campaign: server, proxy, workers and nemesis, and what came of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::adapter::{Adapter, Place};
use super::args::CheckArgs;
use super::disk::Disk;
use super::history::{Event, History, Journal, Kind};
use super::nemesis::Nemesis;
use super::proxy::Proxy;
use super::schedule::{Fault, Schedule};
use super::server::Process;
use super::verify::{Verdict, verify};
use super::world::{Part, World};
use crate::clock::{Clock, run_number};
use crate::error::BenchError;

/// What came of a campaign.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) server: String,
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    /// What was done how often.
    pub(crate) faults: BTreeMap<Fault, u64>,
    pub(crate) kills: u64,
    /// What could not be had.
    pub(crate) notes: Vec<String>,
    pub(crate) histories: Vec<History>,
    pub(crate) verdict: Verdict,
    /// Where the histories are, if they were kept.
    pub(crate) folder: Option<PathBuf>,
}

/// Runs one.
pub(crate) async fn run(adapter: &impl Adapter, args: &CheckArgs) -> Result<Outcome, BenchError> {
    let (run, clock) = (run_number(), Clock::start());
    let seed = args.seed.unwrap_or_else(|| u64::from(run));
    let folder = args
        .folder
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("mqchat-check-{run:08x}")));
    make_empty(&folder)?;
    let mut notes = Vec::new();
    let mut faults = if args.faults.is_empty() {
        adapter.faults()
    } else {
        args.faults.clone()
    };
    let disk = Disk::make(&folder, &mut faults, &mut notes)?;
    if faults.is_empty() {
        return Err(BenchError::Check(format!(
            "no fault can be had: {}",
            notes.join("; ")
        )));
    }
    let address = free_address()?;
    let place = Place {
        port: address.port(),
        data: disk.data(),
        folder: folder.clone(),
    };
    let (mut journal, _) = Journal::open(&folder, "nemesis")?;
    journal.write(Event::Began {
        user: "nemesis".to_owned(),
        kind: Kind::Nemesis,
    })?;
    let proxy = Proxy::start(address).await.map_err(BenchError::Proxy)?;
    let at = proxy.address();
    let mut nemesis = Nemesis::begin(adapter, (disk, place, proxy), journal).await?;
    let cast = adapter.prepare(address, run).await?;
    let world = World {
        seed,
        address: at,
        users: cast.users,
        parts: cast.parts,
    };
    world.write(&folder)?;
    let mut crew = Crew::start(&folder, &world.parts)?;
    crew.all_say("ready", START_PATIENCE).await?;
    crew.tell_all("go")?;
    let schedule = Schedule::new(seed, faults, world.parts.len());
    let begun = clock.elapsed();
    let is_over = |kills: u64, now: Duration| match args.kills {
        Some(wanted) => {
            kills >= wanted
                || now.saturating_sub(begun).as_secs() > wanted.saturating_mul(SECONDS_PER_KILL)
        }
        None => now.saturating_sub(begun) >= Duration::from_secs(args.seconds),
    };
    for step in schedule {
        if is_over(nemesis.kills(), clock.elapsed()) {
            break;
        }
        sleep(step.pause).await;
        crew.check()?;
        nemesis.strike(step.blow, &mut crew).await?;
        until_it_goes_on(&folder).await?;
    }
    nemesis.heal().await?;
    finish(&mut crew, &mut nemesis).await?;
    let (faults, kills) = nemesis.end().await?;
    drop(crew);
    let histories = History::read_all(&folder)?;
    let verdict = verify(&histories);
    if verdict.figures.acked == 0 {
        return Err(BenchError::Check("nothing was acknowledged".to_owned()));
    }
    let keeps = args.folder.is_some() || !verdict.is_clean();
    if !keeps {
        fs::remove_dir_all(&folder).map_err(|error| BenchError::at(&folder, error))?;
    }
    Ok(Outcome {
        server: adapter.name(),
        seed,
        seconds: clock.elapsed().saturating_sub(begun).as_secs(),
        faults,
        kills,
        notes,
        histories,
        verdict,
        folder: keeps.then_some(folder),
    })
}

/// Everything is settled, then taken, then told. Who does not get there is recorded.
async fn finish(
    crew: &mut Crew,
    nemesis: &mut Nemesis<'_, impl Adapter>,
) -> Result<(), BenchError> {
    for word in ["quiet", "end"] {
        crew.tell_all(word)?;
        for user in crew.who_does_not_say(word, END_PATIENCE).await? {
            nemesis.record(Event::Stuck { user })?;
        }
    }
    Ok(())
}

/// A folder in which there is nothing of another campaign.
fn make_empty(folder: &Path) -> Result<(), BenchError> {
    fs::create_dir_all(folder).map_err(|error| BenchError::at(folder, error))?;
    let mut listed = fs::read_dir(folder).map_err(|error| BenchError::at(folder, error))?;
    if listed.next().is_some() {
        return Err(BenchError::Check(format!(
            "{} is not empty",
            folder.display()
        )));
    }
    Ok(())
}

/// A port of loopback that is free now.
fn free_address() -> Result<SocketAddr, BenchError> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = bound.and_then(|listener| listener.local_addr());
    address.map_err(BenchError::Proxy)
}

/// Waits until the workers write again: a fault that hits nobody finds nothing.
async fn until_it_goes_on(folder: &Path) -> Result<(), BenchError> {
    let clock = Clock::start();
    let before = written(folder)?;
    while written(folder)? < before + PROGRESS_BYTES && clock.elapsed() < PROGRESS_PATIENCE {
        sleep(LOOK).await;
    }
    Ok(())
}

fn written(folder: &Path) -> Result<u64, BenchError> {
    let mut bytes = 0;
    let listed = fs::read_dir(folder).map_err(|error| BenchError::at(folder, error))?;
    for entry in listed {
        let entry = entry.map_err(|error| BenchError::at(folder, error))?;
        if entry
            .path()
            .extension()
            .is_some_and(|ending| ending == "jsonl")
        {
            bytes += entry.metadata().map_or(0, |info| info.len());
        }
    }
    Ok(bytes)
}

/// The workers, each a process.
pub(crate) struct Crew {
    folder: PathBuf,
    members: Vec<Member>,
    said: mpsc::Receiver<(usize, String)>,
    says: mpsc::Sender<(usize, String)>,
    /// What they were told last: those who begin anew are told it again.
    word: &'static str,
}

struct Member {
    name: String,
    process: Process,
    orders: Option<ChildStdin>,
    /// It has said that it is at its end.
    ended: bool,
}

impl Crew {
    fn start(folder: &Path, parts: &[Part]) -> Result<Self, BenchError> {
        let (says, said) = mpsc::channel(64);
        let mut crew = Self {
            folder: folder.to_owned(),
            members: Vec::new(),
            said,
            says,
            word: "wait",
        };
        for (at, part) in parts.iter().enumerate() {
            let member = crew.spawn(at, &part.name)?;
            crew.members.push(member);
        }
        Ok(crew)
    }

    fn spawn(&self, at: usize, name: &str) -> Result<Member, BenchError> {
        let program = std::env::current_exe().map_err(BenchError::Child)?;
        let child = Command::new(program)
            .arg("check-worker")
            .arg("--folder")
            .arg(&self.folder)
            .args(["--name", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = Process::new(child.map_err(BenchError::Child)?);
        let orders = process.child().stdin.take();
        if let Some(out) = process.child().stdout.take() {
            let says = self.says.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    if says.blocking_send((at, line)).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Member {
            name: name.to_owned(),
            process,
            orders,
            ended: false,
        })
    }

    /// SIGKILL of one, and start.
    pub(crate) fn kill(&mut self, at: usize) -> Result<(), BenchError> {
        let Some(member) = self.members.get_mut(at) else {
            return Ok(());
        };
        member.process.kill()?;
        let name = member.name.clone();
        let fresh = self.spawn(at, &name)?;
        if let Some(member) = self.members.get_mut(at) {
            *member = fresh;
            member.tell(self.word)?;
        }
        Ok(())
    }

    /// The process of one.
    pub(crate) fn process(&self, at: usize) -> Option<&Process> {
        self.members.get(at).map(|member| &member.process)
    }

    /// Nobody may end by himself.
    fn check(&mut self) -> Result<(), BenchError> {
        for member in &mut self.members {
            let is_over = |status: &ExitStatus| self.word == "end" && status.success();
            if !member.ended
                && let Some(status) = member.process.exited()?
                && !is_over(&status)
            {
                return Err(BenchError::Check(format!(
                    "worker {} ended: {status}",
                    member.name
                )));
            }
        }
        Ok(())
    }

    fn tell_all(&mut self, word: &'static str) -> Result<(), BenchError> {
        self.word = word;
        self.members
            .iter_mut()
            .try_for_each(|member| member.tell(word))
    }

    async fn all_say(&mut self, word: &str, patience: Duration) -> Result<(), BenchError> {
        let missing = self.who_does_not_say(word, patience).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        Err(BenchError::Check(format!(
            "not {word} after {patience:?}: {missing}"
        )))
    }

    /// Waits until all have said this, or nobody has said anything for so long.
    async fn who_does_not_say(
        &mut self,
        word: &str,
        patience: Duration,
    ) -> Result<Vec<String>, BenchError> {
        let mut silent: BTreeMap<usize, String> = BTreeMap::new();
        for (at, member) in self.members.iter().enumerate() {
            silent.insert(at, member.name.clone());
        }
        let clock = Clock::start();
        while !silent.is_empty() && clock.elapsed() < patience {
            match timeout(LOOK, self.said.recv()).await {
                Ok(Some((at, said))) if said == word => {
                    silent.remove(&at);
                    if let Some(member) = self.members.get_mut(at) {
                        member.ended = word == "end";
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => self.check()?,
            }
        }
        Ok(silent.into_values().collect())
    }
}

impl Member {
    fn tell(&mut self, word: &str) -> Result<(), BenchError> {
        let Some(orders) = &mut self.orders else {
            return Ok(());
        };
        let told = writeln!(orders, "{word}").and_then(|()| orders.flush());
        told.map_err(BenchError::Child)
    }
}

const LOOK: Duration = Duration::from_millis(20);
/// A campaign of so many kills is given up then; its report tells how many there were.
const SECONDS_PER_KILL: u64 = 30;
/// After a fault so much has to be recorded before the next one.
const PROGRESS_BYTES: u64 = 2_000;
const PROGRESS_PATIENCE: Duration = Duration::from_secs(10);
const START_PATIENCE: Duration = Duration::from_mins(1);
const END_PATIENCE: Duration = Duration::from_mins(2);
