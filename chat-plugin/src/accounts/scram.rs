//! SCRAM-SHA-256: who proves a password without sending it. The dialogue is the broker's, the keys and the counting of
//! failures are here.
//!
//! An attempt counts when its proof is judged, whatever the outcome, so that of many dialogues at once no more are told
//! their outcome than of many in a row.

use broker::hooks::AuthenticateRequest;
use broker::scram::Credential;
use proto::ids::Handle;

use super::{Accounts, AuthError, place_of};
use crate::clock;
use crate::domain::user::{ScramKeys, User};
use crate::store::StoreError;

impl Accounts {
    /// Is SCRAM-SHA-256 offered?
    pub fn offers_scram(&self) -> bool {
        self.config.scram
    }

    /// What a client that gives this user name is to prove; `None`: nobody can. A refusal is told in the log.
    ///
    /// # Errors
    /// [`AuthError::Throttled`] if too many logins have failed from there, or the store's error.
    pub async fn scram_credential(
        &self,
        name: &str,
        request: &AuthenticateRequest,
    ) -> Result<Option<Credential>, AuthError> {
        let attempt = self.throttle.attempt(place_of(request), name, false);
        let result = match self.throttle.check(&attempt, clock::monotonic()) {
            Ok(()) => self.scram_user(name).await.map_err(Into::into),
            Err(retry) => Err(AuthError::Throttled { retry }),
        };
        let found = self.told(name, request, result)?;
        Ok(found.map(|(_, keys)| credential(&keys)))
    }

    /// The user whose keys a client has proved to know (`None`: the proof was wrong, or there is nothing to prove), if
    /// they are still the user's. A refusal is told in the log.
    ///
    /// # Errors
    /// As [`Accounts::authenticate`].
    pub async fn scram_login(
        &self,
        name: &str,
        request: &AuthenticateRequest,
        proved: Option<&Credential>,
    ) -> Result<User, AuthError> {
        let result = self.judge_scram(name, request, proved).await;
        self.told(name, request, result)
    }

    async fn judge_scram(
        &self,
        name: &str,
        request: &AuthenticateRequest,
        proved: Option<&Credential>,
    ) -> Result<User, AuthError> {
        let attempt = self.throttle.attempt(place_of(request), name, false);
        let begun = self.throttle.begin(&attempt, clock::monotonic());
        begun.map_err(|retry| AuthError::Throttled { retry })?;
        let proved = proved.ok_or(AuthError::BadCredentials)?;
        let found = self.scram_user(name).await;
        // What was proved was no guess, even if the password has changed meanwhile.
        self.throttle.undecided(&attempt, clock::monotonic());
        match found? {
            Some((user, keys)) if credential(&keys) == *proved => {
                self.throttle.succeeded(&attempt);
                Ok(user)
            }
            _ => Err(AuthError::BadCredentials),
        }
    }

    async fn scram_user(&self, name: &str) -> Result<Option<(User, ScramKeys)>, StoreError> {
        let Ok(handle) = name.parse::<Handle>() else {
            return Ok(None);
        };
        let user = self.store.user_by_handle(&handle).await?;
        Ok(user.and_then(|user| {
            let keys = user.scram.clone()?;
            Some((user, keys))
        }))
    }

    fn told<T>(
        &self,
        name: &str,
        request: &AuthenticateRequest,
        result: Result<T, AuthError>,
    ) -> Result<T, AuthError> {
        if let Err(error) = &result {
            let now = clock::monotonic();
            self.refused.tell(Some(name), request, error, now);
        }
        result
    }
}

fn credential(keys: &ScramKeys) -> Credential {
    Credential {
        salt: keys.salt.to_vec(),
        iterations: keys.iterations,
        stored_key: keys.stored_key,
        server_key: keys.server_key,
    }
}
