//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side: both sides prove that they know a password (or what was derived
//! from it), and it never crosses the wire.
//!
//! 1. The client says who it is, and a nonce.
//! 2. The server adds a nonce of its own and says how the user's keys are derived: salt and iterations.
//! 3. The client proves that it has the key, for exactly these messages.
//! 4. The server does the same.
//!
//! Who is unknown is answered like who is known, with a salt that stays the same for the name while the process lives.
//! There is no channel binding. Names are compared as they come: preparing them (RFC 4013) is the client's work.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::codec::reason::ReasonCode;
use crate::hooks::{AuthenticateRequest, Authentication, AuthenticationStep, Hooks};

/// The name of the method.
pub const METHOD: &str = "SCRAM-SHA-256";
/// Iterations that unknown users are said to have: with another number for the known ones, they could be told apart.
pub const ITERATIONS: u32 = 15_000;

/// What a server keeps of a password: enough to recognise who has it, not enough to log in elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// At least 16 random bytes.
    pub salt: Vec<u8>,
    /// At least 4,096 (RFC 7677 §4).
    pub iterations: u32,
    /// `H(HMAC(salted password, "Client Key"))`.
    pub stored_key: [u8; 32],
    /// `HMAC(salted password, "Server Key")`.
    pub server_key: [u8; 32],
}

impl Credential {
    /// Derives the keys of a password. Takes milliseconds: not for an async task.
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let salted = salted_password(password, salt, iterations);
        Self {
            salt: salt.to_vec(),
            iterations,
            stored_key: Sha256::digest(hmac(&salted, &[b"Client Key"])).into(),
            server_key: hmac(&salted, &[b"Server Key"]),
        }
    }

    /// What somebody unknown seems to have.
    fn fake(secret: &[u8; 32], user: &str) -> Self {
        let part = |label: &[u8]| hmac(secret, &[label, user.as_bytes()]);
        Self {
            salt: part(b"salt").iter().take(16).copied().collect(),
            iterations: ITERATIONS,
            stored_key: part(b"stored key"),
            server_key: part(b"server key"),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

/// One login.
pub(crate) struct Scram {
    hooks: Arc<dyn Hooks>,
    secret: [u8; 32],
    request: AuthenticateRequest,
    challenge: Option<(bool, Challenge)>,
}

impl Scram {
    /// `secret` makes up what unknown users seem to have.
    pub(crate) fn new(
        hooks: Arc<dyn Hooks>,
        secret: [u8; 32],
        request: AuthenticateRequest,
    ) -> Self {
        Self {
            hooks,
            secret,
            request,
            challenge: None,
        }
    }

    async fn begin(&mut self, first: &[u8]) -> Result<AuthenticationStep, ReasonCode> {
        let first = ClientFirst::parse(first).ok_or(ReasonCode::NotAuthorized)?;
        let known = self
            .hooks
            .scram_credential(&first.user, &self.request)
            .await?;
        let is_known = known.is_some();
        let credential = known.unwrap_or_else(|| Credential::fake(&self.secret, &first.user));
        let mut nonce = [0; 18];
        getrandom::fill(&mut nonce).map_err(|_| ReasonCode::ServerUnavailable)?;
        let challenge = Challenge::new(&first, credential, &BASE64.encode(&nonce));
        let message = Bytes::copy_from_slice(challenge.server_first.as_bytes());
        self.challenge = Some((is_known, challenge));
        Ok(AuthenticationStep::Continue(message))
    }
}

#[async_trait]
impl Authentication for Scram {
    async fn step(&mut self, data: Bytes) -> Result<AuthenticationStep, ReasonCode> {
        let Some((is_known, challenge)) = self.challenge.take() else {
            return self.begin(&data).await;
        };
        let signature = challenge.verify(&data).filter(|_| is_known);
        let proved = signature.is_some().then_some(&challenge.credential);
        let login = self
            .hooks
            .scram_login(&challenge.user, &self.request, proved);
        let identity = login.await?;
        let data = signature.ok_or(ReasonCode::NotAuthorized)?;
        Ok(AuthenticationStep::Done {
            identity,
            data: Some(data.into()),
        })
    }
}

/// The client's first message.
#[derive(Debug, PartialEq, Eq)]
struct ClientFirst {
    /// What the client will repeat, in base64.
    gs2_header: String,
    /// The message without it.
    bare: String,
    user: String,
    nonce: String,
}

impl ClientFirst {
    /// `None` for what is no such message, and for what is not offered: channel binding, acting for somebody else,
    /// extensions that must be understood.
    fn parse(data: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(data).ok()?;
        let (binding, rest) = text.split_once(',')?;
        let (acting_for, bare) = rest.split_once(',')?;
        if !matches!(binding, "n" | "y") {
            return None;
        }
        let mut parts = bare.split(',');
        let user = unescaped(parts.next()?.strip_prefix("n=")?)?;
        let nonce = parts.next()?.strip_prefix("r=")?;
        let acting_for = acting_for.strip_prefix("a=").map(unescaped);
        if user.is_empty()
            || nonce.is_empty()
            || acting_for.is_some_and(|it| it.as_ref() != Some(&user))
        {
            return None;
        }
        Some(Self {
            gs2_header: BASE64.encode(text.get(..text.len() - bare.len())?.as_bytes()),
            bare: bare.to_owned(),
            nonce: nonce.to_owned(),
            user,
        })
    }
}

/// A name with `,` and `=` as they were (RFC 5802 §5.1).
fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (escaped, rest) = part.split_at_checked(2)?;
        plain.push(match escaped {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        plain.push_str(rest);
    }
    Some(plain)
}

/// What the client is to answer.
struct Challenge {
    user: String,
    gs2_header: String,
    nonce: String,
    client_first_bare: String,
    server_first: String,
    credential: Credential,
}

impl Challenge {
    fn new(first: &ClientFirst, credential: Credential, server_nonce: &str) -> Self {
        let nonce = format!("{}{server_nonce}", first.nonce);
        let salt = BASE64.encode(&credential.salt);
        Self {
            user: first.user.clone(),
            gs2_header: first.gs2_header.clone(),
            client_first_bare: first.bare.clone(),
            server_first: format!("r={nonce},s={salt},i={}", credential.iterations),
            nonce,
            credential,
        }
    }

    /// The server's last message, if the client's proof is right.
    fn verify(&self, client_final: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(client_final).ok()?;
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let mut parts = without_proof.split(',');
        let binding = parts.next()?.strip_prefix("c=")?;
        let nonce = parts.next()?.strip_prefix("r=")?;
        if binding != self.gs2_header || nonce != self.nonce {
            return None;
        }
        let messages: [&[u8]; 5] = [
            self.client_first_bare.as_bytes(),
            b",",
            self.server_first.as_bytes(),
            b",",
            without_proof.as_bytes(),
        ];
        let proof: [u8; 32] = BASE64.decode(proof.as_bytes()).ok()?.try_into().ok()?;
        let mut client_key = hmac(&self.credential.stored_key, &messages);
        for (byte, proof) in client_key.iter_mut().zip(proof) {
            *byte ^= proof;
        }
        let stored_key: [u8; 32] = Sha256::digest(client_key).into();
        let differences = stored_key.iter().zip(&self.credential.stored_key);
        if differences.fold(0, |all, (one, other)| all | (one ^ other)) != 0 {
            return None;
        }
        let signature = hmac(&self.credential.server_key, &messages);
        Some(format!("v={}", BASE64.encode(&signature)))
    }
}

/// `Hi` of RFC 5802 §2.2, which is PBKDF2 with one block.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let keyed = keyed(password);
    let mut last = keyed
        .clone()
        .chain_update(salt)
        .chain_update([0, 0, 0, 1])
        .finalize();
    let mut all: [u8; 32] = last.clone().into_bytes().into();
    for _ in 1..iterations {
        last = keyed.clone().chain_update(last.into_bytes()).finalize();
        for (byte, new) in all.iter_mut().zip(last.clone().into_bytes()) {
            *byte ^= new;
        }
    }
    all
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut keyed = keyed(key);
    for part in parts {
        keyed.update(part);
    }
    keyed.finalize().into_bytes().into()
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677 §3.
    fn example() -> (ClientFirst, Challenge) {
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let credential = Credential::derive(b"pencil", &salt, 4_096);
        let first = ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
        let challenge = Challenge::new(&first, credential, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
        (first, challenge)
    }

    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    #[test]
    fn the_example_of_the_rfc_holds() {
        let (first, challenge) = example();
        assert_eq!(first.user, "user");
        assert_eq!(
            challenge.server_first,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        assert_eq!(
            challenge.verify(CLIENT_FINAL.as_bytes()).unwrap(),
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn another_password_nonce_header_or_proof_is_refused() {
        let (_, challenge) = example();
        for (from, to) in [
            ("biws", "eSws"),
            ("%hvY", "%hvX"),
            ("p=dHz", "p=dHy"),
            ("=", ""),
        ] {
            let changed = CLIENT_FINAL.replacen(from, to, 1);
            assert_eq!(challenge.verify(changed.as_bytes()), None, "{changed}");
        }
        let (_, mut other) = example();
        other.credential = Credential::derive(b"pen", &other.credential.salt, 4_096);
        assert_eq!(other.verify(CLIENT_FINAL.as_bytes()), None);
    }

    #[test]
    fn a_first_message_is_taken_apart() {
        let parse = |text: &str| ClientFirst::parse(text.as_bytes());
        let first = parse("y,a=a=2Cb=3Dc,n=a=2Cb=3Dc,r=x,ext=1").unwrap();
        assert_eq!((&*first.user, &*first.nonce), ("a,b=c", "x"));
        assert_eq!(first.bare, "n=a=2Cb=3Dc,r=x,ext=1");
        for text in [
            "",
            "n,,",
            "n,,n=,r=x",
            "n,,n=u,r=",
            "n,,n=u",
            "n,,r=x,n=u",
            "n,,m=x,n=u,r=x",
            "n,a=other,n=u,r=x",
            "p=tls-unique,,n=u,r=x",
            "n,,n=u=2c,r=x",
            "n,,n=u=,r=x",
            "n,,n=u=é,r=x",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(ClientFirst::parse(b"n,,n=\xFF,r=x"), None);
    }

    #[test]
    fn somebody_unknown_always_seems_to_have_the_same_salt() {
        let salt = |secret, user| Credential::fake(&[secret; 32], user).salt;
        assert_eq!(salt(1, "a"), salt(1, "a"));
        assert_ne!(salt(1, "a"), salt(1, "b"));
        assert_ne!(salt(1, "a"), salt(2, "a"));
        assert_eq!(salt(1, "a").len(), 16);
    }
}
