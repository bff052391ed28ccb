//! Whether the store takes writes, and why not.

use std::sync::{OnceLock, PoisonError, RwLock};

use super::kv::EngineError;

/// How a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It takes writes.
    Ready,
    /// It serves reads but takes nothing that needs room, and says why (disk budget used up).
    ReadOnly(String),
    /// A write could not be made durable: no further write until a restart.
    Poisoned(String),
}

/// Whether a store takes writes; shared by its writer and its callers.
#[derive(Debug, Default)]
pub struct Condition {
    poisoned: OnceLock<String>,
    closed: OnceLock<()>,
    read_only: RwLock<Option<String>>,
}

impl Condition {
    /// A write could not be made durable: the end of all writing.
    pub fn poison(&self, reason: String) {
        // The first reason is the one that counts.
        let _later = self.poisoned.set(reason);
    }

    /// A write could not be made durable.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.get().is_some()
    }

    /// The store has been closed.
    pub fn close(&self) {
        let _again = self.closed.set(());
    }

    /// Nothing that needs room is written, or it is again.
    pub fn set_read_only(&self, reason: Option<String>) {
        let mut read_only = self
            .read_only
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match (&*read_only, &reason) {
            (None, Some(reason)) => tracing::error!(%reason, "the store takes no writes"),
            (Some(_), None) => tracing::info!("the store takes writes again"),
            _ => {}
        }
        *read_only = reason;
    }

    /// Nothing at all is written any more.
    pub fn is_over(&self) -> bool {
        self.refusal::<EngineError>().is_some()
    }

    /// Why nothing at all is written.
    pub fn refusal<E: From<EngineError>>(&self) -> Option<E> {
        if let Some(reason) = self.poisoned.get() {
            return Some(EngineError::Io(reason.clone()).into());
        }
        self.closed
            .get()
            .map(|()| EngineError::Io("it is closed".to_owned()).into())
    }

    /// Nothing that needs room is written while the disk budget is used up.
    ///
    /// # Errors
    /// Why not.
    pub fn may_grow(&self) -> Result<(), EngineError> {
        if let Some(error) = self.refusal() {
            return Err(error);
        }
        let read_only = self
            .read_only
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        match &*read_only {
            Some(reason) => Err(EngineError::ReadOnly(reason.clone())),
            None => Ok(()),
        }
    }

    /// How the store is.
    pub fn health(&self) -> Health {
        match self.may_grow() {
            Ok(()) => Health::Ready,
            Err(EngineError::ReadOnly(reason)) => Health::ReadOnly(reason),
            Err(EngineError::Io(reason)) => Health::Poisoned(reason),
            Err(error) => Health::Poisoned(error.to_string()),
        }
    }
}
