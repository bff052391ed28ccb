//! Invitations: how they are called, and the codes that are handed around.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{IdError, decode_base32, digest16, encode_base32};

/// An invitation, for those who manage it. It lets nobody in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InvitationId([u8; 16]);

impl InvitationId {
    /// The id with these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for InvitationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encode_base32(self.0, f)
    }
}

impl FromStr for InvitationId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        decode_base32(text).map(Self)
    }
}
text_id!(InvitationId);

/// A code that lets in whoever has it: 128 random bits. A secret, so it is not shown by `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InvitationCode([u8; 16]);

impl InvitationCode {
    /// The code with these 16 random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// What is kept of it.
    pub fn hash(&self) -> [u8; 16] {
        digest16(&[b"invitation", &self.0])
    }
}

impl fmt::Debug for InvitationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InvitationCode")
    }
}

impl fmt::Display for InvitationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encode_base32(self.0, f)
    }
}

impl FromStr for InvitationCode {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        decode_base32(text).map(Self)
    }
}

impl Serialize for InvitationCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_text_that_debug_does_not_show() {
        let code = InvitationCode::from_bytes([7; 16]);
        assert_eq!(code.to_string().parse(), Ok(code));
        assert_eq!(format!("{code:?}"), "InvitationCode");
        assert_ne!(code.hash(), InvitationCode::from_bytes([8; 16]).hash());
        assert!("0".repeat(25).parse::<InvitationCode>().is_err());
    }
}
