//! Users: who may connect.

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
    /// When made, in ms since 1970.
    pub created_ms: u64,
    /// Removed users keep their row, so that the log can name them; they cannot connect, and the handle rests.
    pub removed_ms: Option<u64>,
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
