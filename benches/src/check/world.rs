//! What the workers of a campaign have to know: who they are, where to go and what to do. One file in its folder.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::history::Kind;
use crate::error::BenchError;

/// A campaign as its workers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct World {
    pub(crate) seed: u64,
    /// Where the server is to be reached: the checker's proxy.
    pub(crate) address: SocketAddr,
    /// Handles by uid.
    pub(crate) users: BTreeMap<String, String>,
    pub(crate) parts: Vec<Part>,
}

/// What one worker does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Of its history, its user and its messages.
    pub(crate) name: String,
    pub(crate) password: Option<String>,
    pub(crate) kind: Kind,
    /// 3 or 5.
    pub(crate) mqtt: u8,
    /// Of what it publishes.
    pub(crate) qos: u8,
    /// Where it publishes: conversations or topics.
    pub(crate) to: Vec<String>,
    /// What comes to it: conversations or topics.
    pub(crate) listen: Vec<String>,
    /// Whom it removes from which conversation and adds again, now and then.
    pub(crate) removes: Option<(String, String)>,
}

impl World {
    pub(crate) fn read(folder: &Path) -> Result<Self, BenchError> {
        let path = folder.join(FILE);
        let text = fs::read(&path).map_err(|error| BenchError::at(&path, error))?;
        serde_json::from_slice(&text).map_err(|error| BenchError::History {
            place: path.display().to_string(),
            error,
        })
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), BenchError> {
        let path = folder.join(FILE);
        let text = serde_json::to_vec_pretty(self).map_err(|error| BenchError::History {
            place: path.display().to_string(),
            error,
        })?;
        fs::write(&path, text).map_err(|error| BenchError::at(&path, error))
    }

    pub(crate) fn part(&self, name: &str) -> Result<&Part, BenchError> {
        let found = self.parts.iter().find(|part| part.name == name);
        found.ok_or_else(|| BenchError::Check(format!("there is no worker {name}")))
    }
}

const FILE: &str = "world.json";
