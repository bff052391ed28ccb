//! Which engine, where, and how much it may use.

#[cfg(any(feature = "fjall", feature = "sled"))]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

pub use broker::store::EngineKind;
use broker::store::memory::MemoryEngine;
#[cfg(any(feature = "fjall", feature = "sled"))]
use broker::store::{
    OpenOptions,
    directory::{Directory, Format},
    offline::Place,
};
use serde::{Deserialize, Serialize};

use super::clock::{Clock, MonotonicClock};
use super::embedded::EmbeddedStore;
#[cfg(any(feature = "fjall", feature = "sled"))]
use super::embedded::SCHEMA;
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

#[cfg(any(feature = "fjall", feature = "sled"))]
impl StoreOptions {
    /// The store on the disk, to be dumped, loaded and compacted while nobody has it open.
    pub fn place(&self) -> Place {
        Place {
            engine: self.engine,
            directory: self.directory.clone(),
            format: FORMAT,
            schema: SCHEMA,
            options: self.for_engine(),
            title: "mqchat dump 1\n",
        }
    }

    /// What the engine has to know of them.
    pub(super) fn for_engine(&self) -> OpenOptions {
        OpenOptions {
            tables: super::tables::ALL,
            memory_bytes: self.memory_bytes,
            accept_loss: self.accept_loss,
        }
    }
}

/// How the directory of the store is known.
#[cfg(any(feature = "fjall", feature = "sled"))]
pub(super) const FORMAT: Format = Format {
    marker: "MQCHAT",
    title: "mqchat store 1",
    watermark: *b"mqchatwm",
};

/// The engine that the store in this directory was made with, without locking it.
///
/// # Errors
/// [`StoreError::NotFound`] if there is no store, [`StoreError::Corrupt`] if its marker makes no sense.
#[cfg(any(feature = "fjall", feature = "sled"))]
pub fn engine_of(directory: &Path) -> Result<String, StoreError> {
    Ok(Directory::engine_of(directory, FORMAT)?)
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
            let directory = Directory::open(&options.directory, FORMAT, options.engine.name())?;
            let engine =
                broker::store::fjall::FjallEngine::open(&directory, &options.for_engine())?;
            let store = EmbeddedStore::start(engine, Some(directory), options, clock)?;
            Ok(Arc::new(store))
        }
        #[cfg(feature = "sled")]
        EngineKind::Sled => {
            let directory = Directory::open(&options.directory, FORMAT, options.engine.name())?;
            let engine = broker::store::sled::SledEngine::open(&directory, &options.for_engine())?;
            let store = EmbeddedStore::start(engine, Some(directory), options, clock)?;
            Ok(Arc::new(store))
        }
        engine => Err(StoreError::Unavailable(format!(
            "this program was built without the engine {}",
            engine.name()
        ))),
    }
}
