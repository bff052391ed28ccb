//! Calls in protobuf. A request becomes the JSON object of its method and a result is made of the JSON of it, since both
//! are one schema: there is one way in which a call is judged, whatever the form. Only pages of the log are written at
//! once, so that each entry keeps what its sender wrote.

use prost::Message;
use serde::{Deserialize, Serialize};

use super::Failure;
use crate::ids::Seq;
use crate::quote::quoted;
use crate::schema::rpc_reply::Result as Outcome;
use crate::schema::rpc_request::Params;
use crate::schema::{RpcError, RpcReply, RpcRequest};
use crate::wire::Wire;

/// Reads an `RpcRequest` to this method as the JSON object that would say the same.
///
/// # Errors
/// What is wrong, in words for the one who called.
pub fn request_as_json(method: &str, payload: &[u8]) -> Result<Vec<u8>, String> {
    let request = RpcRequest::decode(payload)
        .map_err(|error| format!("not an RpcRequest in protobuf: {error}"))?;
    let Some(params) = request.params else {
        return Ok(b"{}".to_vec());
    };
    let (of, json) = match &params {
        Params::ConvCreate(params) => ("conv.create", json(params)),
        Params::ConvGet(params) => ("conv.get", json(params)),
        Params::ConvList(params) => ("conv.list", json(params)),
        Params::ConvAdd(params) => ("conv.add", json(params)),
        Params::ConvRemove(params) => ("conv.remove", json(params)),
        Params::ConvLeave(params) => ("conv.leave", json(params)),
        Params::ConvRole(params) => ("conv.role", json(params)),
        Params::ConvSettings(params) => ("conv.settings", json(params)),
        Params::ConvPrefs(params) => ("conv.prefs", json(params)),
        Params::ConvTransfer(params) => ("conv.transfer", json(params)),
        Params::ConvRights(params) => ("conv.rights", json(params)),
        Params::ConvBan(params) => ("conv.ban", json(params)),
        Params::ConvUnban(params) => ("conv.unban", json(params)),
        Params::ConvReaders(params) => ("conv.readers", json(params)),
        Params::SearchConversations(params) => ("search.conversations", json(params)),
        Params::ConvBans(params) => ("conv.bans", json(params)),
        Params::ConvInvite(params) => ("conv.invite", json(params)),
        Params::ConvInvitations(params) => ("conv.invitations", json(params)),
        Params::ConvRevoke(params) => ("conv.revoke", json(params)),
        Params::ConvPeek(params) => ("conv.peek", json(params)),
        Params::ConvJoin(params) => ("conv.join", json(params)),
        Params::ConvRequests(params) => ("conv.requests", json(params)),
        Params::ConvApprove(params) => ("conv.approve", json(params)),
        Params::ConvRefuse(params) => ("conv.refuse", json(params)),
        Params::ConvWithdraw(params) => ("conv.withdraw", json(params)),
        Params::CaseOpen(params) => ("case.open", json(params)),
        Params::CaseQueue(params) => ("case.queue", json(params)),
        Params::CaseClaim(params) => ("case.claim", json(params)),
        Params::CaseTransfer(params) => ("case.transfer", json(params)),
        Params::CaseClose(params) => ("case.close", json(params)),
        Params::CaseVisitor(params) => ("case.visitor", json(params)),
        Params::MsgHistory(params) => ("msg.history", json(params)),
        Params::MsgStatus(params) => ("msg.status", json(params)),
        Params::MsgSend(params) => ("msg.send", json(params)),
        Params::MsgEdit(params) => ("msg.edit", json(params)),
        Params::MsgDelete(params) => ("msg.delete", json(params)),
        Params::MsgReact(params) => ("msg.react", json(params)),
        Params::MsgPin(params) => ("msg.pin", json(params)),
        Params::MsgReport(params) => ("msg.report", json(params)),
        Params::MsgPins(params) => ("msg.pins", json(params)),
        Params::MsgReactions(params) => ("msg.reactions", json(params)),
        Params::MsgMentions(params) => ("msg.mentions", json(params)),
        Params::MsgScheduled(params) => ("msg.scheduled", json(params)),
        Params::MsgReschedule(params) => ("msg.reschedule", json(params)),
        Params::MsgUnschedule(params) => ("msg.unschedule", json(params)),
        Params::MeGet(params) => ("me.get", json(params)),
        Params::MeSet(params) => ("me.set", json(params)),
        Params::MePrivacy(params) => ("me.privacy", json(params)),
        Params::SyncChanges(params) => ("sync.changes", json(params)),
        Params::MeHandle(params) => ("me.handle", json(params)),
        Params::MeDevices(params) => ("me.devices", json(params)),
        Params::MeRevoke(params) => ("me.revoke", json(params)),
        Params::MeDelete(params) => ("me.delete", json(params)),
        Params::PeopleGet(params) => ("people.get", json(params)),
        Params::SearchUsers(params) => ("search.users", json(params)),
        Params::ConvTrim(params) => ("conv.trim", json(params)),
        Params::ModPurgeUser(params) => ("mod.purge_user", json(params)),
        Params::MeExport(params) => ("me.export", json(params)),
        Params::MeErase(params) => ("me.erase", json(params)),
        Params::ModHeld(params) => ("mod.held", json(params)),
        Params::ModDecide(params) if method == "mod.reject" => ("mod.reject", json(params)),
        Params::ModDecide(params) => ("mod.approve", json(params)),
        Params::ModReports(params) => ("mod.reports", json(params)),
        Params::ModSettle(params) => ("mod.settle", json(params)),
        Params::DevList(params) => ("dev.list", json(params)),
        Params::DevSend(params) => ("dev.send", json(params)),
        Params::PeopleAdd(params) => ("people.add", json(params)),
        Params::PeopleRemove(params) => ("people.remove", json(params)),
        Params::PeopleList(params) => ("people.list", json(params)),
        Params::PeopleBlock(params) => ("people.block", json(params)),
        Params::PeopleUnblock(params) => ("people.unblock", json(params)),
        Params::PeopleBlocks(params) => ("people.blocks", json(params)),
    };
    if of != method {
        return Err(format!(
            "the parameters are those of {of}, not of {}",
            quoted(method)
        ));
    }
    json
}

/// Writes the result of a method, which is there as JSON, as an `RpcReply`. Not of `msg.history`: see
/// [`history_reply`].
///
/// # Errors
/// That it is no result of this method.
pub fn reply_from_json(method: &str, json: &str) -> Result<Vec<u8>, String> {
    let outcome = match method {
        "conv.create" | "conv.get" | "conv.prefs" | "case.open" => {
            read(json).map(Outcome::Conversation)
        }
        "conv.list" => read(json).map(Outcome::Conversations),
        "conv.add" | "conv.remove" | "conv.leave" | "conv.role" | "conv.settings"
        | "conv.transfer" | "conv.rights" | "conv.ban" | "conv.unban" | "conv.revoke"
        | "conv.approve" | "conv.refuse" | "conv.withdraw" | "case.claim" | "case.transfer"
        | "case.close" | "msg.send" | "msg.edit" | "msg.delete" | "msg.react" | "msg.pin"
        | "msg.report" | "mod.approve" | "mod.reject" | "mod.settle" => {
            read(json).map(Outcome::Changed)
        }
        "case.queue" => read(json).map(Outcome::Cases),
        "case.visitor" => read(json).map(Outcome::Visitor),
        "conv.bans" => read(json).map(Outcome::Bans),
        "conv.readers" => read(json).map(Outcome::Readers),
        "search.conversations" => read(json).map(Outcome::Found),
        "conv.invite" => read(json).map(Outcome::Invitation),
        "conv.invitations" => read(json).map(Outcome::Invitations),
        "conv.peek" => read(json).map(Outcome::Glimpse),
        "conv.join" => read(json).map(Outcome::Joined),
        "conv.requests" => read(json).map(Outcome::Requests),
        "msg.status" => read(json).map(Outcome::Status),
        "msg.pins" => read(json).map(Outcome::Pins),
        "msg.reactions" => read(json).map(Outcome::Reactions),
        "msg.mentions" => read(json).map(Outcome::Mentions),
        "msg.scheduled" => read(json).map(Outcome::Scheduled),
        "msg.reschedule" => read(json).map(Outcome::Rescheduled),
        "msg.unschedule" => read(json).map(Outcome::Unscheduled),
        "sync.changes" => read(json).map(Outcome::Changes),
        "me.get" | "me.set" | "me.handle" => read(json).map(Outcome::Me),
        "me.devices" | "me.revoke" => read(json).map(Outcome::Devices),
        "me.delete" | "dev.send" => read(json).map(Outcome::Done),
        "dev.list" => read(json).map(Outcome::DeviceIds),
        "people.get" => read(json).map(Outcome::Person),
        "search.users" => read(json).map(Outcome::Users),
        "me.privacy" => read(json).map(Outcome::Privacy),
        "conv.trim" | "mod.purge_user" => read(json).map(Outcome::Purged),
        "me.export" => read(json).map(Outcome::Export),
        "me.erase" => read(json).map(Outcome::Erased),
        "mod.held" => read(json).map(Outcome::Held),
        "mod.reports" => read(json).map(Outcome::Reports),
        "people.add" | "people.remove" | "people.block" | "people.unblock" => {
            read(json).map(Outcome::Contact)
        }
        "people.list" | "people.blocks" => read(json).map(Outcome::Contacts),
        _ => Err(format!("{} has no reply in protobuf", quoted(method))),
    };
    outcome.map(encode)
}

/// Writes a page of the log as an `RpcReply`; the entries are protobuf `LogEntry`s.
pub fn history_reply(entries: &[Vec<u8>], more: bool, head: Seq) -> Vec<u8> {
    let bytes: usize = entries.iter().map(|entry| entry.len() + 6).sum();
    let mut page = Wire::with_capacity(bytes + 16);
    for entry in entries {
        page.bytes(1, entry);
    }
    page.number(2, u64::from(more));
    page.number(3, head.get());
    let mut reply = Wire::with_capacity(bytes + 32);
    reply.bytes(5, &page.into_bytes());
    reply.into_bytes()
}

/// Writes a refusal as an `RpcReply`.
pub fn refusal(failure: &Failure) -> Vec<u8> {
    encode(Outcome::Error(RpcError {
        code: failure.code.name().to_owned(),
        message: failure.message.clone(),
        retry_ms: failure.retry_ms,
    }))
}

fn encode(outcome: Outcome) -> Vec<u8> {
    let reply = RpcReply {
        result: Some(outcome),
    };
    reply.encode_to_vec()
}

fn json(params: &impl Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(params).map_err(|error| error.to_string())
}

fn read<T: for<'de> Deserialize<'de>>(json: &str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorName;
    use crate::schema::{ConvCreate, ConvSettings, HistoryPage, LogEntry, MeGet, MsgHistory};

    fn asked(method: &str, params: Params) -> Result<String, String> {
        let request = RpcRequest {
            params: Some(params),
        };
        let json = request_as_json(method, &request.encode_to_vec())?;
        Ok(String::from_utf8(json).unwrap())
    }

    #[test]
    fn a_request_says_in_protobuf_what_it_says_in_json() {
        let create = ConvCreate {
            title: Some("Lunch".into()),
            members: vec!["@bob".into()],
            roles: [("@bob".to_owned(), "admin".to_owned())].into(),
            ..ConvCreate::default()
        };
        assert_eq!(
            asked("conv.create", Params::ConvCreate(create)).unwrap(),
            r#"{"title":"Lunch","members":["@bob"],"roles":{"@bob":"admin"}}"#
        );
        let empty_title = ConvSettings {
            cid: "me".into(),
            title: Some(String::new()),
            ..ConvSettings::default()
        };
        assert_eq!(
            asked("conv.settings", Params::ConvSettings(empty_title)).unwrap(),
            r#"{"cid":"me","title":""}"#
        );
        let from_the_start = MsgHistory {
            cid: "me".into(),
            after: Some(0),
            ..MsgHistory::default()
        };
        assert_eq!(
            asked("msg.history", Params::MsgHistory(from_the_start)).unwrap(),
            r#"{"cid":"me","after":0}"#
        );
        assert_eq!(request_as_json("me.get", b"").unwrap(), b"{}");
    }

    #[test]
    fn a_request_of_another_method_is_refused() {
        let refused = asked("me.set", Params::MeGet(MeGet {})).unwrap_err();
        assert_eq!(
            refused,
            "the parameters are those of me.get, not of `me.set`"
        );
        assert!(request_as_json("me.get", b"\x0a\x05x").is_err());
    }

    #[test]
    fn a_reply_is_a_result_or_a_refusal() {
        let decode = |bytes: Vec<u8>| RpcReply::decode(&*bytes).unwrap().result.unwrap();
        let me = reply_from_json("me.get", r#"{"uid":"u","handle":"alice","unread":3}"#).unwrap();
        assert!(matches!(decode(me), Outcome::Me(me) if me.handle == "alice" && me.unread == 3));
        let failure = Failure {
            code: ErrorName::NotFound,
            message: "no such user".into(),
            retry_ms: None,
        };
        let refused = decode(refusal(&failure));
        assert!(matches!(refused, Outcome::Error(error) if error.code == "not_found"));
        let entry = LogEntry {
            seq: 7,
            ..LogEntry::default()
        };
        let page = history_reply(&[entry.encode_to_vec()], true, Seq::new(9));
        let wanted = HistoryPage {
            entries: vec![entry],
            more: true,
            head: 9,
        };
        assert_eq!(decode(page), Outcome::History(wanted));
    }
}
