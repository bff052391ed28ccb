//! mqchat: a group, two direct conversations, clients of both protocol versions, and apps on the SDK.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use broker::codec::packet::Version;
use bytes::Bytes;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::{Adapter, Cast, Place};
use crate::check::history::{Kind, SETUP};
use crate::check::schedule::Fault;
use crate::check::world::Part;
use crate::client::{Client, Login};
use crate::clock::Clock;
use crate::error::BenchError;
use crate::rpc;

/// `mqchat serve --dev`.
#[derive(Clone, Debug)]
pub(crate) struct Mqchat {
    pub(crate) program: PathBuf,
}

impl Adapter for Mqchat {
    fn name(&self) -> String {
        "mqchat".to_owned()
    }

    fn faults(&self) -> Vec<Fault> {
        Fault::value_variants().to_vec()
    }

    fn command(&self, place: &Place) -> Result<Command, BenchError> {
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--dev", "--listen"])
            .arg(format!("127.0.0.1:{}", place.port))
            .arg("--data-dir")
            .arg(&place.data)
            // Nobody's passwords: logins after each start shall not take seconds.
            .env("MQCHAT_ACCOUNTS__ARGON2_MEMORY_KIB", "8");
        Ok(command)
    }

    fn accept_loss(&self) -> Option<&'static str> {
        Some("--accept-loss")
    }

    async fn prepare(&self, address: SocketAddr, run: u32) -> Result<Cast, BenchError> {
        let mut cast = Cast::default();
        let mut owner = None;
        for name in USERS {
            let mut client = connect(address, name).await?;
            rpc::subscribe(&mut client).await?;
            let me = call(&mut client, "me.get", &json!({}), run).await?;
            let uid = text(&me, "uid", "me.get")?;
            cast.users.insert(uid, name.to_owned());
            match owner {
                None => owner = Some(client),
                Some(_) => client.disconnect().await?,
            }
        }
        let Some(mut owner) = owner else {
            return Ok(cast);
        };
        let members: Vec<_> = USERS
            .iter()
            .skip(1)
            .map(|name| format!("@{name}"))
            .collect();
        let group = json!({"title": "check", "members": members});
        let group = call(&mut owner, "conv.create", &group, run).await?;
        let group = text(&group, "cid", "conv.create")?;
        let (bea, kim) = (
            begin(&mut owner, "bea", run).await?,
            begin(&mut owner, "kim", run).await?,
        );
        owner.disconnect().await?;
        let part = |name: &str, (kind, mqtt, qos): (Kind, u8, u8), to: &[&String]| Part {
            name: name.to_owned(),
            password: Some(PASSWORD.to_owned()),
            kind,
            mqtt,
            qos,
            to: to.iter().map(|to| (*to).clone()).collect(),
            listen: to.iter().map(|to| (*to).clone()).collect(),
            removes: (name == OWNER).then(|| (group.clone(), REMOVED.to_owned())),
        };
        cast.parts = vec![
            part(OWNER, (Kind::Chat, 5, 1), &[&group, &bea, &kim]),
            part("bea", (Kind::Chat, 3, 1), &[&group, &bea]),
            part("cyd", (Kind::Chat, 5, 2), &[&group]),
            part(REMOVED, (Kind::Chat, 5, 1), &[&group]),
            part("kim", (Kind::Sdk, 5, 1), &[&group, &kim]),
            part("lou", (Kind::Sdk, 5, 1), &[&group]),
        ];
        Ok(cast)
    }
}

/// Begins a direct conversation, so that everybody may write to it by its id.
async fn begin(owner: &mut Client, peer: &str, run: u32) -> Result<String, BenchError> {
    let topic = format!("chat/to/@{peer}/{SETUP}-{peer}");
    let first = Bytes::from_static(b"hello");
    let reason = owner.publish_and_wait(&topic, first, rpc::drop_it).await?;
    if reason.is_error() {
        return Err(BenchError::Call {
            method: "publish",
            told: format!("{reason:?}"),
        });
    }
    let asked = json!({"cid": format!("@{peer}")});
    let id = format!("check-{run:08x}-{peer}");
    let made = rpc::call(owner, "conv.get", &asked, &id, rpc::drop_it).await?;
    text(&made, "cid", "conv.get")
}

async fn connect(address: SocketAddr, name: &str) -> Result<Client, BenchError> {
    let login = Login {
        addr: address,
        version: Version::V5,
        client_id: "check-setup".to_owned(),
        user: Some(name.to_owned()),
        password: Some(PASSWORD.to_owned()),
        persistent: false,
    };
    Ok(Client::connect(&login, Clock::start()).await?.client)
}

async fn call(
    client: &mut Client,
    method: &'static str,
    request: &Value,
    run: u32,
) -> Result<Value, BenchError> {
    let id = format!("check-{run:08x}-{method}");
    rpc::call(client, method, request, &id, rpc::drop_it).await
}

fn text(value: &Value, name: &str, method: &'static str) -> Result<String, BenchError> {
    let found = value.get(name).and_then(Value::as_str).map(str::to_owned);
    found.ok_or_else(|| BenchError::Call {
        method,
        told: value.to_string(),
    })
}

const OWNER: &str = "ann";
const REMOVED: &str = "eve";
/// The owner of the group is the first.
const USERS: [&str; 6] = [OWNER, "bea", "cyd", REMOVED, "kim", "lou"];
/// Of users who live as long as the campaign.
const PASSWORD: &str = "check-secret";
