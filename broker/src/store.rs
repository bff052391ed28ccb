//! What is at rest: the seam to embedded engines, and the broker's own [`sessions`].
//!
//! An engine ([`kv::KvEngine`]) keeps ordered tables and knows nothing of what they mean. Around it: the directory with its
//! lock and marker, the commit watermark that tells a cut-off log from a complete one, and the condition that remembers a
//! write that failed. Stores of any kind are built of these parts. `docs/storage.md` draws the files.

pub mod budget;
pub mod bulk;
pub mod condition;
pub mod directory;
#[cfg(feature = "fjall")]
pub mod fjall;
pub mod kv;
pub mod memory;
#[cfg(any(feature = "fjall", feature = "sled"))]
pub mod offline;
pub mod recover;
pub mod sessions;
#[cfg(feature = "sled")]
pub mod sled;
pub mod watermark;

use serde::{Deserialize, Serialize};

pub use self::condition::Health;
use self::kv::Table;

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

/// How to open an engine.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// What it is to hold.
    pub tables: &'static [Table],
    /// Memory for caches, in bytes: an aim rather than a limit.
    pub memory_bytes: u64,
    /// Make missing files anew, although something was there.
    pub accept_loss: bool,
}
