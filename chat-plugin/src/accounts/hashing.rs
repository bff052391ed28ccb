//! argon2id, and PBKDF2 for SCRAM, off the hot path: few threads, a bounded queue in front of them, and «busy» when that is full.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use broker::scram::{Credential, ITERATIONS};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AccountsConfig;
use super::mosquitto::MosquittoHash;
use crate::domain::user::ScramKeys;

/// Hashes and verifies, a bounded number at a time.
pub(super) struct Hashing {
    argon2: Argon2<'static>,
    /// Derive the keys of SCRAM-SHA-256 as well.
    scram: bool,
    /// One permit for each login that is hashed or waits.
    places: Arc<Semaphore>,
    /// One permit for each thread.
    threads: Arc<Semaphore>,
}

/// What is kept of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// The PHC string of argon2id.
    pub(super) phc: String,
    /// If the configuration wants them.
    pub(super) scram: Option<ScramKeys>,
}

/// Why nothing was hashed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HashError {
    #[error("the queue is full")]
    Busy,
    #[error("{0}")]
    Failed(String),
}

impl Hashing {
    pub(super) fn new(config: &AccountsConfig) -> Result<Self, HashError> {
        let params = Params::new(config.argon2_memory_kib, config.argon2_passes, 1, None)
            .map_err(|error| HashError::Failed(error.to_string()))?;
        let threads = usize::try_from(config.hashes_at_once).unwrap_or(usize::MAX);
        let threads = threads.clamp(1, Semaphore::MAX_PERMITS);
        let queue = usize::try_from(config.hash_queue_max).unwrap_or(usize::MAX);
        let places = threads.saturating_add(queue).min(Semaphore::MAX_PERMITS);
        Ok(Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            scram: config.scram,
            places: Arc::new(Semaphore::new(places)),
            threads: Arc::new(Semaphore::new(threads)),
        })
    }

    /// What is to be kept of a new password, under new random salts.
    pub(super) async fn keep(&self, password: &[u8]) -> Result<Kept, HashError> {
        let (argon2, password) = (self.argon2.clone(), Box::<[u8]>::from(password));
        let with_scram = self.scram;
        self.run(move || kept(&argon2, &password, with_scram)).await
    }

    /// The keys of a password alone, if the configuration wants them.
    pub(super) async fn scram(&self, password: &[u8]) -> Result<Option<ScramKeys>, HashError> {
        if !self.scram {
            return Ok(None);
        }
        let password = Box::<[u8]>::from(password);
        self.run(move || scram_keys(&password).map(Some)).await
    }

    /// As much work as [`Hashing::verify`], for nothing.
    pub(super) async fn waste(&self, password: &[u8]) -> Result<(), HashError> {
        let (argon2, password) = (self.argon2.clone(), Box::<[u8]>::from(password));
        self.run(move || phc(&argon2, &password).map(drop)).await
    }

    /// Is this the password of that PHC string? The parameters are those of the string.
    pub(super) async fn verify(&self, password: &[u8], phc: &str) -> Result<bool, HashError> {
        use argon2::password_hash::Error;
        let (argon2, password) = (self.argon2.clone(), Box::<[u8]>::from(password));
        let phc = Box::<str>::from(phc);
        self.run(move || {
            let failed = |error: &dyn ToString| HashError::Failed(error.to_string());
            let hash = PasswordHash::new(&phc).map_err(|error| failed(&error))?;
            match argon2.verify_password(&password, &hash) {
                Ok(()) => Ok(true),
                Err(Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(failed(&error)),
            }
        })
        .await
    }

    /// Is this the password of that hash of Mosquitto's? If so, returns what is to take its place.
    /// A wrong one costs as much as any other password: how long it takes does not tell whose are imported.
    pub(super) async fn renew(
        &self,
        password: &[u8],
        imported: &str,
    ) -> Result<Option<Kept>, HashError> {
        let Some(imported) = MosquittoHash::parse(imported) else {
            return Err(HashError::Failed("the imported hash is damaged".into()));
        };
        let (argon2, password) = (self.argon2.clone(), Box::<[u8]>::from(password));
        let with_scram = self.scram;
        self.run(move || {
            let phc = phc(&argon2, &password)?;
            if !imported.is_of(&password) {
                return Ok(None);
            }
            let scram = with_scram.then(|| scram_keys(&password)).transpose()?;
            Ok(Some(Kept { phc, scram }))
        })
        .await
    }

    /// Takes a thread away for as long as the permit lives, so that a test can hold a login while it is hashed.
    #[cfg(test)]
    pub(super) fn occupy(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.threads).try_acquire_owned().unwrap()
    }

    /// Runs `work` on a thread of its own. The permits go with it: a caller who gives up (the connection has closed)
    /// leaves the queue at once if he waits, and keeps his thread occupied until the work is done if it runs.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| HashError::Busy)?;
        let thread = Arc::clone(&self.threads)
            .acquire_owned()
            .await
            .map_err(|_| HashError::Busy)?;
        let permits: (OwnedSemaphorePermit, OwnedSemaphorePermit) = (place, thread);
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permits);
            result
        });
        done.await
            .map_err(|error| HashError::Failed(error.to_string()))?
    }
}

fn kept(argon2: &Argon2<'_>, password: &[u8], with_scram: bool) -> Result<Kept, HashError> {
    Ok(Kept {
        phc: phc(argon2, password)?,
        scram: with_scram.then(|| scram_keys(password)).transpose()?,
    })
}

fn scram_keys(password: &[u8]) -> Result<ScramKeys, HashError> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| HashError::Failed(error.to_string()))?;
    let derived = Credential::derive(password, &salt, ITERATIONS);
    Ok(ScramKeys {
        salt,
        iterations: derived.iterations,
        stored_key: derived.stored_key,
        server_key: derived.server_key,
    })
}

fn phc(argon2: &Argon2<'_>, password: &[u8]) -> Result<String, HashError> {
    let hash: Result<PasswordHash, _> = argon2.hash_password(password);
    hash.map(|hash| hash.to_string())
        .map_err(|error| HashError::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap(threads: u32, queue: u32) -> Hashing {
        let config = AccountsConfig {
            argon2_memory_kib: 8,
            argon2_passes: 1,
            hashes_at_once: threads,
            hash_queue_max: queue,
            ..AccountsConfig::default()
        };
        Hashing::new(&config).unwrap()
    }

    #[tokio::test]
    async fn a_password_is_verified_against_its_own_hash_only() {
        let hashing = cheap(1, 1);
        let kept = hashing.keep(b"one").await.unwrap();
        assert_eq!(kept.scram, None, "nobody wants them");
        let phc = kept.phc;
        assert!(phc.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{phc}");
        assert_eq!(hashing.verify(b"one", &phc).await, Ok(true));
        assert_eq!(hashing.verify(b"two", &phc).await, Ok(false));
    }

    #[tokio::test]
    async fn a_damaged_hash_is_no_wrong_password() {
        let result = cheap(1, 1).verify(b"one", "$argon2id$nonsense").await;
        assert!(matches!(result, Err(HashError::Failed(_))), "{result:?}");
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_who_gives_up_makes_room() {
        let hashing = cheap(1, 1);
        let running = hashing.occupy();
        let mut next = Box::pin(hashing.waste(b"next"));
        assert!(futures_util::poll!(&mut next).is_pending());
        let mut waiting = Box::pin(hashing.waste(b"waits"));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert_eq!(hashing.waste(b"third").await, Err(HashError::Busy));

        drop(waiting);
        let mut waiting = Box::pin(hashing.waste(b"takes the free place"));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(running);
        assert!(next.await.is_ok());
        assert!(waiting.await.is_ok());
    }
}
