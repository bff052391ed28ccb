//! Which engine, where, and how much it may use.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::clock::{Clock, MonotonicClock};
#[cfg(any(feature = "fjall", feature = "sled"))]
use super::directory::Directory;
use super::embedded::EmbeddedStore;
use super::memory::MemoryEngine;
use super::{ChatStore, StoreError};

/// How to open a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreOptions {
    /// What keeps the data.
    pub engine: EngineKind,
    /// A directory of the store's own; made if it does not exist. Not used by `memory`.
    pub directory: PathBuf,
    /// Memory for caches, in bytes. Engines take it as an aim rather than a limit.
    pub memory_bytes: u64,
    /// The store becomes read-only when its files occupy so many bytes of disk, before the disk is full; 0: no limit.
    pub max_disk_bytes: u64,
    /// Start although acknowledged data is missing. Never from a file: somebody has to say so each time.
    #[serde(skip)]
    pub accept_loss: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            engine: EngineKind::default(),
            directory: PathBuf::from("store"),
            memory_bytes: 256 * 1024 * 1024,
            max_disk_bytes: 0,
            accept_loss: false,
        }
    }
}

/// The embedded engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EngineKind {
    /// fjall 3, a log-structured engine: the default.
    #[default]
    Fjall,
    /// sled 0.34: small sites, up to 10 million messages or 16 GB.
    Sled,
    /// Nothing on a disk: for tests and trying out.
    Memory,
}

impl EngineKind {
    /// Its name in the configuration and in the store's directory.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fjall => "fjall",
            Self::Sled => "sled",
            Self::Memory => "memory",
        }
    }
}

/// Opens a store, and makes it if its directory does not exist or is empty.
///
/// # Errors
/// [`StoreError::Locked`] if another process has it; [`StoreError::NewerSchema`]; [`StoreError::Behind`] if acknowledged
/// data is missing; [`StoreError::Corrupt`] if the directory holds something else, another engine's data, or files that
/// make no sense; [`StoreError::Unavailable`] if the disk refuses, or this program was built without the engine.
pub fn open(options: &StoreOptions) -> Result<Arc<dyn ChatStore>, StoreError> {
    open_with_clock(options, Arc::new(MonotonicClock::start()))
}

/// As [`open`], with a clock of one's own.
///
/// # Errors
/// As [`open`].
pub fn open_with_clock(
    options: &StoreOptions,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn ChatStore>, StoreError> {
    match options.engine {
        EngineKind::Memory => {
            let store = EmbeddedStore::start(MemoryEngine::default(), None, options, clock)?;
            Ok(Arc::new(store))
        }
        #[cfg(feature = "fjall")]
        EngineKind::Fjall => {
            let directory = Directory::open(&options.directory, options.engine.name())?;
            let engine = super::fjall::FjallEngine::open(&directory, options)?;
            let store = EmbeddedStore::start(engine, Some(directory), options, clock)?;
            Ok(Arc::new(store))
        }
        #[cfg(feature = "sled")]
        EngineKind::Sled => {
            let directory = Directory::open(&options.directory, options.engine.name())?;
            let engine = super::sled::SledEngine::open(&directory, options)?;
            let store = EmbeddedStore::start(engine, Some(directory), options, clock)?;
            Ok(Arc::new(store))
        }
        #[cfg(not(all(feature = "fjall", feature = "sled")))]
        engine => Err(StoreError::Unavailable(format!(
            "this program was built without the engine {}",
            engine.name()
        ))),
    }
}
