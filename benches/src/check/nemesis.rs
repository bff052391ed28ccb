//! The one who breaks things: does what the schedule says to the server, the network and the workers, and writes it down.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use super::adapter::{Adapter, Place};
use super::campaign::Crew;
use super::disk::Disk;
use super::history::{Event, Journal};
use super::proxy::Proxy;
use super::schedule::{Blow, Fault};
use super::server::{Server, Start};
use crate::clock::Clock;
use crate::error::BenchError;

/// What it has in its hands.
pub(crate) struct Nemesis<'a, A> {
    adapter: &'a A,
    disk: Disk,
    place: Place,
    proxy: Proxy,
    journal: Journal,
    server: Option<Server>,
    kills: u64,
    /// Until then the server may end by itself: its disk was full.
    may_end: Duration,
    clock: Clock,
    done: BTreeMap<Fault, u64>,
}

impl<'a, A: Adapter> Nemesis<'a, A> {
    /// Starts the server.
    pub(crate) async fn begin(
        adapter: &'a A,
        (disk, place, proxy): (Disk, Place, Proxy),
        journal: Journal,
    ) -> Result<Self, BenchError> {
        let mut nemesis = Self {
            adapter,
            disk,
            place,
            proxy,
            journal,
            server: None,
            kills: 0,
            may_end: Duration::ZERO,
            clock: Clock::start(),
            done: BTreeMap::new(),
        };
        match nemesis.try_start(None).await? {
            Ok(()) => Ok(nemesis),
            Err(why) => Err(BenchError::Check(format!(
                "the server does not start: {why}"
            ))),
        }
    }

    /// Processes that were killed.
    pub(crate) const fn kills(&self) -> u64 {
        self.kills
    }

    pub(crate) fn record(&mut self, event: Event) -> Result<(), BenchError> {
        self.journal.write(event)
    }

    /// Does one thing.
    pub(crate) async fn strike(&mut self, blow: Blow, crew: &mut Crew) -> Result<(), BenchError> {
        self.look().await?;
        let (fault, crash) = (blow.to_string(), blow.crashes());
        self.record(Event::Fault { fault, crash })?;
        self.kills += u64::from(blow.kills());
        *self.done.entry(blow.fault()).or_default() += 1;
        match blow {
            Blow::Kill => {
                self.kill()?;
                self.start().await
            }
            Blow::Stop(lasts) => {
                self.signal(Signal::STOP)?;
                sleep(lasts).await;
                self.signal(Signal::CONT)
            }
            Blow::Restart => self.restart().await,
            Blow::Cut => {
                self.proxy.cut();
                Ok(())
            }
            Blow::Mute { answers, lasts } => {
                self.proxy.mute(answers);
                sleep(lasts).await;
                self.proxy.cut();
                Ok(())
            }
            Blow::KillClient(at) => crew.kill(at),
            Blow::StopClient(at, lasts) => {
                let Some(process) = crew.process(at) else {
                    return Ok(());
                };
                process.signal(Signal::STOP)?;
                sleep(lasts).await;
                process.signal(Signal::CONT)
            }
            Blow::Power => self.cut_power().await,
            Blow::Sync => {
                self.disk.fail_syncs(true)?;
                self.await_exit(EXIT_PATIENCE).await?;
                self.disk.fail_syncs(false)?;
                self.cut_power().await
            }
            Blow::Clock(ahead) => self.disk.jump(ahead),
            Blow::Full(lasts) => {
                self.disk.fill(true)?;
                self.await_exit(lasts).await?;
                self.disk.fill(false)?;
                self.may_end = self.clock.elapsed() + EXIT_PATIENCE;
                Ok(())
            }
        }
    }

    /// All is well again, and stays so.
    pub(crate) async fn heal(&mut self) -> Result<(), BenchError> {
        self.record(Event::Fault {
            fault: "none from here on".to_owned(),
            crash: false,
        })?;
        self.disk.jump(0)?;
        let left = self.may_end.saturating_sub(self.clock.elapsed());
        self.await_exit(left).await?;
        self.look().await
    }

    /// Ends the server; what was done how often, and how many processes were killed.
    pub(crate) async fn end(mut self) -> Result<(BTreeMap<Fault, u64>, u64), BenchError> {
        if let Some(server) = &mut self.server {
            server.process.signal(Signal::TERM)?;
            server.process.wait(STOP_PATIENCE).await?;
        }
        Ok((self.done, self.kills))
    }

    /// Nobody but the nemesis may end the server.
    async fn look(&mut self) -> Result<(), BenchError> {
        let Some(server) = &mut self.server else {
            return self.start().await;
        };
        if let Some(status) = server.process.exited()? {
            if self.clock.elapsed() > self.may_end {
                let why = format!("it ended by itself: {status}");
                self.record(Event::Down { why })?;
            }
            self.start().await?;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<(), BenchError> {
        let server = self.server.as_ref();
        server.map_or(Ok(()), |server| server.process.signal(signal))
    }

    fn kill(&mut self) -> Result<(), BenchError> {
        let killed = self.server.take();
        killed.map_or(Ok(()), |mut server| server.process.kill())
    }

    fn has_exited(&mut self) -> Result<bool, BenchError> {
        match &mut self.server {
            Some(server) => Ok(server.process.exited()?.is_some()),
            None => Ok(true),
        }
    }

    async fn await_exit(&mut self, patience: Duration) -> Result<(), BenchError> {
        if let Some(server) = &mut self.server {
            server.process.wait(patience).await?;
        }
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), BenchError> {
        self.signal(Signal::TERM)?;
        self.await_exit(STOP_PATIENCE).await?;
        if !self.has_exited()? {
            let why = format!("it does not stop within {STOP_PATIENCE:?}");
            self.record(Event::Down { why })?;
        }
        self.kill()?;
        self.start().await
    }

    async fn cut_power(&mut self) -> Result<(), BenchError> {
        self.kill()?;
        self.disk.cut()?;
        self.start().await
    }

    /// Starts the server. One that sees by itself that something is missing is recorded, and told to go on all the same.
    async fn start(&mut self) -> Result<(), BenchError> {
        let Err(why) = self.try_start(None).await? else {
            return Ok(());
        };
        self.record(Event::Down { why: why.clone() })?;
        let again = match self.adapter.accept_loss() {
            Some(argument) => self.try_start(Some(argument)).await?,
            None => self.try_start(None).await?,
        };
        again.map_err(|again| {
            BenchError::Check(format!(
                "the server does not start: {why}; and then: {again}"
            ))
        })
    }

    async fn try_start(
        &mut self,
        argument: Option<&str>,
    ) -> Result<Result<(), String>, BenchError> {
        self.disk.before_start()?;
        self.place.data = self.disk.data();
        let mut command = self.adapter.command(&self.place)?;
        command.args(argument).envs(self.disk.environment());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.place.port));
        let log = self.place.folder.join("server.log");
        match Server::start(command, address, &log).await? {
            Start::Listens(server) => {
                self.server = Some(server);
                self.record(Event::Up)?;
                Ok(Ok(()))
            }
            Start::Refuses(why) => Ok(Err(why)),
        }
    }
}

/// A server drains for ten seconds at most.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// A server that cannot make anything durable ends.
const EXIT_PATIENCE: Duration = Duration::from_secs(5);
