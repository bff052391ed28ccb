//! Users: who may connect.

use std::fmt;

use proto::ids::{Handle, UserId};

/// A user at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// How people address this user.
    pub handle: Handle,
    /// Display name; empty: the handle.
    pub name: String,
    /// PHC string of the argon2id hash, or, until the first login, what was imported; `None`: tokens only.
    pub password_hash: Option<String>,
    /// Keys of the same password, by which SCRAM-SHA-256 lets in; `None`: it does not.
    pub scram: Option<ScramKeys>,
    /// When made, in ms since 1970.
    pub created_ms: u64,
    /// Removed users keep their row, so that the log can name them; they cannot connect, and the handle rests.
    pub removed_ms: Option<u64>,
}

/// What SCRAM-SHA-256 knows of a password (RFC 5802 §3). Whoever reads it can try passwords, but not log in.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// Random.
    pub salt: [u8; 16],
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// `H(HMAC(salted password, "Client Key"))`.
    pub stored_key: [u8; 32],
    /// `HMAC(salted password, "Server Key")`.
    pub server_key: [u8; 32],
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramKeys({} iterations)", self.iterations)
    }
}

/// A token at rest: what a device sends as its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token's 32 random bytes: the key.
    pub hash: [u8; 32],
    /// Short public name, for list and revoke.
    pub id: String,
    /// Whose.
    pub user: UserId,
    /// What for, in the words of the one who issued it.
    pub label: String,
    /// When issued, in ms since 1970.
    pub created_ms: u64,
}
