//! Whether the store takes writes, and why not.

use std::sync::{OnceLock, PoisonError, RwLock};

use crate::store::{Health, StoreError};

/// How the store is.
#[derive(Debug, Default)]
pub(super) struct Condition {
    poisoned: OnceLock<String>,
    closed: OnceLock<()>,
    read_only: RwLock<Option<String>>,
}

impl Condition {
    pub(super) fn poison(&self, reason: String) {
        // The first reason is the one that counts.
        let _later = self.poisoned.set(reason);
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned.get().is_some()
    }

    pub(super) fn close(&self) {
        let _again = self.closed.set(());
    }

    pub(super) fn set_read_only(&self, reason: Option<String>) {
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

    /// Why nothing at all is written.
    pub(super) fn refusal(&self) -> Option<StoreError> {
        if let Some(reason) = self.poisoned.get() {
            return Some(StoreError::Unavailable(reason.clone()));
        }
        self.closed
            .get()
            .map(|()| StoreError::Unavailable("it is closed".to_owned()))
    }

    /// Nothing that needs room is written while the disk budget is used up.
    pub(super) fn may_grow(&self) -> Result<(), StoreError> {
        if let Some(error) = self.refusal() {
            return Err(error);
        }
        let read_only = self
            .read_only
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        match &*read_only {
            Some(reason) => Err(StoreError::ReadOnly(reason.clone())),
            None => Ok(()),
        }
    }

    pub(super) fn health(&self) -> Health {
        match self.may_grow() {
            Ok(()) => Health::Ready,
            Err(StoreError::ReadOnly(reason)) => Health::ReadOnly(reason),
            Err(StoreError::Unavailable(reason)) => Health::Poisoned(reason),
            Err(error) => Health::Poisoned(error.to_string()),
        }
    }
}
