//! Tokens: what a device sends as its password.

use proto::ids::UserId;
use sha2::{Digest, Sha256};

use super::AccountError;
use crate::domain::user::Token;

/// What every token begins with: 64 hexadecimal digits follow.
pub(super) const PREFIX: &str = "mqt_";

/// A new token and its text.
pub(super) fn make(
    user: UserId,
    label: &str,
    now_ms: u64,
) -> Result<(Token, String), AccountError> {
    let mut secret = [0; 32];
    let mut id = [0; 4];
    getrandom::fill(&mut secret).map_err(|error| AccountError::Hash(error.to_string()))?;
    getrandom::fill(&mut id).map_err(|error| AccountError::Hash(error.to_string()))?;
    let text = format!("{PREFIX}{}", hex(&secret));
    let token = Token {
        hash: digest(&secret),
        id: hex(&id),
        user,
        label: label.to_owned(),
        created_ms: now_ms,
    };
    Ok((token, text))
}

/// The hash of a password that is a token; `None` if it has not the form of one.
pub(super) fn hash_of(password: &[u8]) -> Option<[u8; 32]> {
    let digits = password.strip_prefix(PREFIX.as_bytes())?;
    let mut secret = [0; 32];
    if digits.len() != 2 * secret.len() {
        return None;
    }
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(digest(&secret))
}

fn digest(secret: &[u8; 32]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

fn digit(text: u8) -> Option<u8> {
    match text {
        b'0'..=b'9' => Some(text - b'0'),
        b'a'..=b'f' => Some(text - b'a' + 10),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _infallible = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_the_hash_of_its_text() {
        let (token, text) = make(UserId::from_bytes([1; 16]), "phone", 7).unwrap();
        assert_eq!(text.len(), 68);
        assert_eq!(hash_of(text.as_bytes()), Some(token.hash));
        assert!(!text.contains(&token.id));
    }

    #[test]
    fn what_has_not_its_form_is_a_password() {
        assert_eq!(hash_of(b"secret"), None);
        assert_eq!(hash_of(b"mqt_12"), None);
        for digits in ["g".repeat(64), "+f".repeat(32), "A0".repeat(32)] {
            assert_eq!(hash_of(format!("mqt_{digits}").as_bytes()), None);
        }
    }
}
