//! Tokens as devices send them: `mqt_` and 64 hexadecimal digits of 256 random bits.

use std::fmt;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// How a token begins, so that people, and scanners of leaked secrets, know one when they see it.
pub const TOKEN_PREFIX: &str = "mqt_";

/// A token in clear: shown once, when it is issued, and kept nowhere. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret([u8; 32]);

impl TokenSecret {
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// What was sent as a password, if it has the form of a token.
    pub(super) fn parse(password: &[u8]) -> Option<Self> {
        let digits = password.strip_prefix(TOKEN_PREFIX.as_bytes())?;
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
        }
        Some(Self(bytes))
    }

    /// The key under which the token is stored. 256 random bits need no slow hash.
    pub(super) fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    /// The text to be given to the device.
    pub fn reveal(&self) -> String {
        format!("{TOKEN_PREFIX}{}", hex(&self.0))
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

/// The public id of a token: 12 hexadecimal digits of its hash, so that the owner of a leaked token can find it.
pub(super) fn public_id(hash: &[u8; 32]) -> String {
    hex(hash.get(..6).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_was_revealed() {
        let secret = TokenSecret::random().unwrap();
        let text = secret.reveal();
        assert_eq!(text.len(), 68);
        assert_eq!(TokenSecret::parse(text.as_bytes()), Some(secret));
    }

    #[test]
    fn other_passwords_are_no_tokens() {
        let text = TokenSecret::random().unwrap().reveal();
        for other in ["", "mqt_", &text[..67], &text.to_uppercase(), &text[4..]] {
            assert_eq!(TokenSecret::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn debug_does_not_show_a_token() {
        let secret = TokenSecret([0xab; 32]);
        assert!(!format!("{secret:?}").contains("ab"));
    }
}
