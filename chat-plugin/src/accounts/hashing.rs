//! argon2id off the hot path: few threads, a bounded queue in front of them, and «busy» when that is full.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AccountsConfig;
use super::mosquitto::MosquittoHash;

/// Hashes and verifies, a bounded number at a time.
pub(super) struct Hashing {
    argon2: Argon2<'static>,
    /// One permit for each login that is hashed or waits.
    places: Arc<Semaphore>,
    /// One permit for each thread.
    threads: Arc<Semaphore>,
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
            places: Arc::new(Semaphore::new(places)),
            threads: Arc::new(Semaphore::new(threads)),
        })
    }

    /// The PHC string of a password under a new random salt.
    pub(super) async fn hash(&self, password: &[u8]) -> Result<String, HashError> {
        let (argon2, password) = (self.argon2.clone(), Box::<[u8]>::from(password));
        self.run(move || phc(&argon2, &password)).await
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

    /// Is this the password of that hash of Mosquitto's? If so, returns its PHC string, which is to take its place.
    /// Costs as much as any other password: how long it takes does not tell whose are imported.
    pub(super) async fn renew(
        &self,
        password: &[u8],
        imported: &str,
    ) -> Result<Option<String>, HashError> {
        let Some(imported) = MosquittoHash::parse(imported) else {
            return Err(HashError::Failed("the imported hash is damaged".into()));
        };
        let (argon2, password) = (self.argon2.clone(), Box::<[u8]>::from(password));
        self.run(move || {
            let phc = phc(&argon2, &password)?;
            Ok(imported.is_of(&password).then_some(phc))
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
        let phc = hashing.hash(b"one").await.unwrap();
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
        let mut next = Box::pin(hashing.hash(b"next"));
        assert!(futures_util::poll!(&mut next).is_pending());
        let mut waiting = Box::pin(hashing.hash(b"waits"));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert_eq!(hashing.hash(b"third").await, Err(HashError::Busy));

        drop(waiting);
        let mut waiting = Box::pin(hashing.hash(b"takes the free place"));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(running);
        assert!(next.await.is_ok());
        assert!(waiting.await.is_ok());
    }
}
