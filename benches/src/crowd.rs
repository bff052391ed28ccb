//! Many connections at once, while preparing: a bounded number in the making, with patience for a busy broker.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::args::Target;
use crate::client::{Client, Connected, Login};
use crate::clock::Clock;
use crate::error::BenchError;
use crate::scenario::Bench;

/// What a connection is for; it decides the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Publisher,
    Subscriber,
}

impl Role {
    const fn letter(self) -> char {
        match self {
            Self::Publisher => 'p',
            Self::Subscriber => 's',
        }
    }
}

/// The user of connection `index`, if each has its own.
pub(crate) fn handle(target: &Target, role: Role, index: usize) -> Option<String> {
    let prefix = target.user_prefix.as_ref()?;
    Some(format!("{prefix}-{}{index}", role.letter()))
}

/// How connection `index` logs in. Persistent ones keep their name from run to run.
pub(crate) fn login(
    target: &Target,
    role: Role,
    index: usize,
    user: usize,
    run: u32,
    persistent: bool,
) -> Login {
    let letter = role.letter();
    Login {
        addr: target.addr,
        version: target.mqtt,
        client_id: if persistent {
            format!("mqb-{letter}{index}")
        } else {
            format!("mqb-{run:08x}-{letter}{index}")
        },
        user: handle(target, role, user).or_else(|| target.user.clone()),
        password: target.password.clone(),
        persistent,
    }
}

/// Opens all, in the order of `logins`.
pub(crate) async fn connect_all(
    bench: &Bench,
    logins: Vec<Login>,
) -> Result<Vec<Connected>, BenchError> {
    let clock = bench.clock;
    let permits = Arc::new(Semaphore::new(bench.target.connecting.get()));
    let mut tasks = JoinSet::new();
    for (index, login) in logins.into_iter().enumerate() {
        let permits = Arc::clone(&permits);
        tasks.spawn(async move {
            let _permit = permits.acquire().await;
            (index, connect_patiently(&login, clock).await)
        });
    }
    let mut connected = Vec::with_capacity(tasks.len());
    while let Some(finished) = tasks.join_next().await {
        let (index, result) = finished?;
        connected.push((index, result?));
        bench.progress.advance(1);
    }
    connected.sort_unstable_by_key(|(index, _)| *index);
    Ok(connected.into_iter().map(|(_, client)| client).collect())
}

/// Tries again while the broker says that it is busy: first logins cost it a password hash each.
pub(crate) async fn connect_patiently(
    login: &Login,
    clock: Clock,
) -> Result<Connected, BenchError> {
    let give_up_at = clock.elapsed() + PATIENCE;
    loop {
        match Client::connect(login, clock).await {
            Err(error) if error.is_busy() && clock.elapsed() < give_up_at => {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            result => return result,
        }
    }
}

const PATIENCE: Duration = Duration::from_mins(1);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
