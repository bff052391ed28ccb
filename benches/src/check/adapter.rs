//! What the checker has to know of a server: how it is started, and who works with it how.

mod mqchat;
mod plain;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::schedule::Fault;
use super::world::Part;
use crate::error::BenchError;

pub(crate) use mqchat::Mqchat;
pub(crate) use plain::Plain;

/// A kind of server that can be checked.
pub(crate) trait Adapter {
    /// For people.
    fn name(&self) -> String;

    /// Faults that make sense with it.
    fn faults(&self) -> Vec<Fault>;

    /// The command that serves at this place. Called before each start.
    ///
    /// # Errors
    /// Its configuration cannot be written.
    fn command(&self, place: &Place) -> Result<Command, BenchError>;

    /// What to add to the command after a power cut that it does not want to start after, so that the rest can be judged.
    fn accept_loss(&self) -> Option<&'static str> {
        None
    }

    /// Makes what has to be there before the first fault, and says who works how. The server is at `address`.
    ///
    /// # Errors
    /// The server refuses.
    async fn prepare(&self, address: SocketAddr, run: u32) -> Result<Cast, BenchError>;
}

/// Where a server serves.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// On loopback.
    pub(crate) port: u16,
    /// Its data. Another folder after a power cut.
    pub(crate) data: PathBuf,
    /// The folder of the campaign.
    pub(crate) folder: PathBuf,
}

/// Who works how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cast {
    /// Handles by uid, where users have ids.
    pub(crate) users: BTreeMap<String, String>,
    pub(crate) parts: Vec<Part>,
}

/// The program beside this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf, BenchError> {
    let own = std::env::current_exe().map_err(|error| BenchError::at(Path::new(name), error))?;
    let path = own.with_file_name(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(BenchError::Check(format!(
            "there is no {}; name it by --server",
            path.display()
        )))
    }
}
