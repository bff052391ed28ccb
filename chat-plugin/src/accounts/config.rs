//! The options of accounts.

use serde::{Deserialize, Serialize};

/// What an operator can set about passwords and tokens. Unknown names are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountsConfig {
    /// Shortest password that `user add` and `user passwd` take, in bytes. Default 8 (NIST SP 800-63B). Users that
    /// `--dev` makes may have any but the empty one.
    pub password_bytes_min: u32,
    /// Memory of one argon2id hash, in KiB. Default 19,456 (19 MiB, the minimum that OWASP advises).
    pub argon2_memory_kib: u32,
    /// Passes of argon2id over that memory. Default 2 (the same advice; one lane).
    pub argon2_iterations: u32,
    /// Threads that hash passwords; 0 means half of the processors, at least one. Default 0: a storm of logins leaves
    /// the other half to the messages.
    pub hash_threads: u32,
    /// Logins that wait for such a thread; the next one is refused with 0x89 (server busy). Default 128: the last of
    /// them is answered well within the connect timeout.
    pub hash_queue_max: u32,
    /// Seconds for which a verified password need not be hashed again; 0 turns it off. Default 3,600: reconnecting phones
    /// cost microseconds. `user passwd` and `user remove` take effect at once all the same.
    pub verified_cache_s: u32,
    /// Verified passwords remembered. Default 10,000: about 1 MB.
    pub verified_cache_max: u32,
    /// Tokens of one user. Default 100.
    pub tokens_per_user_max: u32,
}

impl Default for AccountsConfig {
    fn default() -> Self {
        Self {
            password_bytes_min: 8,
            argon2_memory_kib: 19 * 1024,
            argon2_iterations: 2,
            hash_threads: 0,
            hash_queue_max: 128,
            verified_cache_s: 3_600,
            verified_cache_max: 10_000,
            tokens_per_user_max: 100,
        }
    }
}

/// An option has a value with which accounts cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option} must be {min} to {max}")]
pub struct AccountsConfigError {
    option: &'static str,
    min: u32,
    max: u32,
}

impl AccountsConfig {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first option whose value is out of its range.
    pub fn check(&self) -> Result<(), AccountsConfigError> {
        let bounds = [
            ("password_bytes_min", self.password_bytes_min, 1, 256),
            // Below 8 KiB argon2 has no room for its blocks; above 4 GiB one login could exhaust the machine.
            ("argon2_memory_kib", self.argon2_memory_kib, 8, 4 << 20),
            ("argon2_iterations", self.argon2_iterations, 1, 1_000),
            ("hash_threads", self.hash_threads, 0, 256),
            ("hash_queue_max", self.hash_queue_max, 1, 100_000),
            (
                "verified_cache_max",
                self.verified_cache_max,
                1,
                100_000_000,
            ),
            ("tokens_per_user_max", self.tokens_per_user_max, 1, 100_000),
        ];
        for (option, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                return Err(AccountsConfigError { option, min, max });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_accepted() {
        assert_eq!(AccountsConfig::default().check(), Ok(()));
    }
}
