//! Hashes of Mosquitto's password files: verified as they are until their users log in, then replaced.
//!
//! `$7$iterations$salt$hash` is PBKDF2 with HMAC-SHA-512 and a key of 64 bytes, `$6$salt$hash` is SHA-512 of password and
//! salt; salt and hash in base64. Both cost far less than argon2id, for whoever logs in and for whoever steals the file.

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha512};

/// A checked hash.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MosquittoHash {
    /// Of PBKDF2; `None`: plain SHA-512.
    iterations: Option<u32>,
    salt: Vec<u8>,
    hash: [u8; 64],
}

impl MosquittoHash {
    /// Has this text the form of one, be it well made or not?
    pub(super) fn claims(text: &str) -> bool {
        text.starts_with("$7$") || text.starts_with("$6$")
    }

    /// `None` if the text is no such hash, or would take minutes to verify.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (iterations, rest) = if let Some(rest) = text.strip_prefix("$7$") {
            let (iterations, rest) = rest.split_once('$')?;
            let iterations = iterations.parse().ok()?;
            (1..=ITERATIONS_MAX).contains(&iterations).then_some(())?;
            (Some(iterations), rest)
        } else {
            (None, text.strip_prefix("$6$")?)
        };
        let (salt, hash) = rest.split_once('$')?;
        let decode = |text: &str| BASE64.decode(text.as_bytes()).ok();
        let salt = decode(salt).filter(|salt| (1..=SALT_BYTES_MAX).contains(&salt.len()))?;
        let hash = decode(hash)?.try_into().ok()?;
        Some(Self {
            iterations,
            salt,
            hash,
        })
    }

    /// Is it that of this password? Takes the same time whichever byte differs.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        let found = match self.iterations {
            Some(iterations) => pbkdf2(password, &self.salt, iterations),
            None => Sha512::new()
                .chain_update(password)
                .chain_update(&self.salt)
                .finalize()
                .into(),
        };
        let pairs = found.iter().zip(&self.hash);
        pairs.fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

/// The first block (RFC 8018 §5.2), which is all of a key as long as the hash.
fn pbkdf2(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 64] {
    let keyed: Hmac<Sha512> =
        Hmac::new_from_slice(password).expect("HMAC takes keys of any length");
    let first = keyed.clone().chain_update(salt).chain_update([0, 0, 0, 1]);
    let mut last: [u8; 64] = first.finalize().into_bytes().into();
    let mut key = last;
    for _ in 1..iterations {
        last = keyed
            .clone()
            .chain_update(last)
            .finalize()
            .into_bytes()
            .into();
        for (byte, other) in key.iter_mut().zip(last) {
            *byte ^= other;
        }
    }
    key
}

/// Some seconds; Mosquitto makes 101, or what its user asks for.
const ITERATIONS_MAX: u32 = 2_000_000;
const SALT_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `mosquitto_passwd` 2.0.
    const MADE: [(&str, &str); 3] = [
        (
            "alice-secret",
            "$7$101$21Jr9G9OKVDrLCtI$+vCLiQtxB6EXCAA7zS0tXRwfetWaT+YhEUwryn5RTji4n8y2JUIaQCzt3U8cQm7x1qNYn+9Vft8ZzNR+FMd7TA==",
        ),
        (
            "bob-secret",
            "$6$wan6KI04nuQhmCoy$dfuRsNIIpumSnjVKUr1jA1zb3owa0VAZBT6ZCJ+4Wn5+tMFxAWvlYFWQAY/YptkKr46k73b1o33tkQ9KbN/jgg==",
        ),
        (
            "pässword zoë",
            "$7$101$JE1xcFU8hdECn1l4$TNF5d3u7FbfACJ9XHMLaDd8H+HcQFojOGbefasZKAYSxXmTUBR0DTNhWzlw3NycESMCqiX7QfL1Q+PdQrb7Cww==",
        ),
    ];

    #[test]
    fn a_password_is_known_by_the_hash_that_mosquitto_made() {
        for (password, text) in MADE {
            assert!(MosquittoHash::claims(text));
            let hash = MosquittoHash::parse(text).unwrap();
            assert!(hash.is_of(password.as_bytes()), "{password}");
            assert!(!hash.is_of(b"other"));
            assert!(!hash.is_of(b""));
        }
    }

    #[test]
    fn what_is_not_well_made_is_no_hash() {
        let [(_, pbkdf2), (_, sha512), _] = MADE;
        for text in [
            "",
            "secret",
            "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA",
            "$7$",
            "$6$salt",
            &pbkdf2.replace("$101$", "$0$"),
            &pbkdf2.replace("$101$", "$4000000000$"),
            &pbkdf2.replace("$101$", "$-1$"),
            &pbkdf2.replace("TA==", ""),
            &sha512.replace("wan6KI04nuQhmCoy", ""),
            &sha512.replace("wan6KI04nuQhmCoy", "not base64"),
            &sha512.replace("$6$", "$6$5$"),
        ] {
            assert_eq!(MosquittoHash::parse(text), None, "{text}");
        }
    }
}
