//! The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) over AUTH.

use broker::codec::packet::{Auth, Packet};
use broker::codec::properties::AuthProperties;
use broker::codec::reason::ReasonCode;
use bytes::Bytes;
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// One dialogue.
pub(crate) struct Scram {
    user: String,
    password: String,
    messages: String,
    salted: [u8; 32],
    /// What the server said of the user: salt and iterations.
    pub(crate) parameters: String,
}

impl Scram {
    pub(crate) const METHOD: &str = "SCRAM-SHA-256";

    pub(crate) fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            messages: String::new(),
            salted: [0; 32],
            parameters: String::new(),
        }
    }

    /// The first message, for CONNECT.
    pub(crate) fn first(&self) -> Bytes {
        format!("n,,n={},r=client-nonce", self.user).into()
    }

    /// The first message, on a live connection.
    pub(crate) fn again(&self) -> Packet {
        auth(ReasonCode::ReAuthenticate, self.first())
    }

    /// The proof.
    pub(crate) fn answer(&mut self, challenge: &Auth) -> Packet {
        assert_eq!(challenge.reason, ReasonCode::ContinueAuthentication);
        let data = challenge.properties.authentication_data.as_ref().unwrap();
        let server_first = std::str::from_utf8(data).unwrap();
        let (nonce, parameters) = server_first.split_once(',').unwrap();
        assert!(nonce.starts_with("r=client-nonce"), "{server_first}");
        parameters.clone_into(&mut self.parameters);
        let (salt, iterations) = parameters.split_once(',').unwrap();
        let salt = BASE64.decode(&salt.as_bytes()[2..]).unwrap();
        self.salted = salted(&self.password, &salt, iterations[2..].parse().unwrap());
        let without_proof = format!("c=biws,{nonce}");
        let user = &self.user;
        self.messages = format!("n={user},r=client-nonce,{server_first},{without_proof}");
        let mut proof = hmac(&self.salted, b"Client Key");
        let stored_key: [u8; 32] = Sha256::digest(proof).into();
        let signature = hmac(&stored_key, self.messages.as_bytes());
        proof.iter_mut().zip(signature).for_each(|(a, b)| *a ^= b);
        let data = format!("{without_proof},p={}", BASE64.encode(&proof));
        auth(ReasonCode::ContinueAuthentication, data)
    }

    /// Is the server who it says?
    pub(crate) fn check(&self, server_final: Option<&Bytes>) {
        let server_key = hmac(&self.salted, b"Server Key");
        let signature = hmac(&server_key, self.messages.as_bytes());
        let expected = format!("v={}", BASE64.encode(&signature));
        assert_eq!(&**server_final.unwrap(), expected.as_bytes());
    }
}

fn auth(reason: ReasonCode, data: impl Into<Bytes>) -> Packet {
    Packet::Auth(Auth {
        reason,
        properties: AuthProperties {
            authentication_method: Some(Scram::METHOD.into()),
            authentication_data: Some(data.into()),
            ..AuthProperties::default()
        },
    })
}

fn salted(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut last = hmac(password.as_bytes(), &[salt, &[0, 0, 0, 1]].concat());
    let mut all = last;
    for _ in 1..iterations {
        last = hmac(password.as_bytes(), &last);
        all.iter_mut().zip(last).for_each(|(all, new)| *all ^= new);
    }
    all
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let keyed = Hmac::<Sha256>::new_from_slice(key).unwrap();
    keyed.chain_update(data).finalize().into_bytes().into()
}
