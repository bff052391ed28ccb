//! Calls in protobuf, in the words of JSON: the schema is one.

use proto::schema::rpc_reply::Result as Outcome;
use proto::schema::rpc_request::Params;
use proto::schema::{Message as _, RpcReply, RpcRequest};
use serde_json::Value;

/// The bytes of a request.
///
/// # Panics
/// If there is no such method, or these are not its parameters.
pub(crate) fn request_in_protobuf(method: &str, request: &Value) -> Vec<u8> {
    let params = Some(params(method, request.clone()));
    RpcRequest { params }.encode_to_vec()
}

fn params(method: &str, request: Value) -> Params {
    macro_rules! of {
        ($($name:literal => $variant:ident,)*) => {
            match method {
                $($name => Params::$variant(serde_json::from_value(request).unwrap()),)*
                other => panic!("{other} is not in the table"),
            }
        };
    }
    of! {
        "case.claim" => CaseClaim,
        "case.close" => CaseClose,
        "case.open" => CaseOpen,
        "case.queue" => CaseQueue,
        "case.transfer" => CaseTransfer,
        "case.visitor" => CaseVisitor,
        "conv.add" => ConvAdd,
        "conv.approve" => ConvApprove,
        "conv.ban" => ConvBan,
        "conv.bans" => ConvBans,
        "conv.create" => ConvCreate,
        "conv.get" => ConvGet,
        "conv.invitations" => ConvInvitations,
        "conv.invite" => ConvInvite,
        "conv.join" => ConvJoin,
        "conv.leave" => ConvLeave,
        "conv.list" => ConvList,
        "conv.peek" => ConvPeek,
        "conv.prefs" => ConvPrefs,
        "conv.readers" => ConvReaders,
        "conv.refuse" => ConvRefuse,
        "conv.remove" => ConvRemove,
        "conv.requests" => ConvRequests,
        "conv.revoke" => ConvRevoke,
        "conv.rights" => ConvRights,
        "conv.role" => ConvRole,
        "conv.settings" => ConvSettings,
        "conv.transfer" => ConvTransfer,
        "conv.trim" => ConvTrim,
        "conv.unban" => ConvUnban,
        "conv.withdraw" => ConvWithdraw,
        "dev.list" => DevList,
        "dev.send" => DevSend,
        "me.delete" => MeDelete,
        "me.devices" => MeDevices,
        "me.erase" => MeErase,
        "me.export" => MeExport,
        "me.get" => MeGet,
        "me.handle" => MeHandle,
        "me.privacy" => MePrivacy,
        "me.revoke" => MeRevoke,
        "me.set" => MeSet,
        "mod.approve" => ModDecide,
        "mod.held" => ModHeld,
        "mod.purge_user" => ModPurgeUser,
        "mod.reject" => ModDecide,
        "mod.reports" => ModReports,
        "mod.settle" => ModSettle,
        "msg.delete" => MsgDelete,
        "msg.edit" => MsgEdit,
        "msg.history" => MsgHistory,
        "msg.mentions" => MsgMentions,
        "msg.pin" => MsgPin,
        "msg.pins" => MsgPins,
        "msg.react" => MsgReact,
        "msg.reactions" => MsgReactions,
        "msg.report" => MsgReport,
        "msg.reschedule" => MsgReschedule,
        "msg.scheduled" => MsgScheduled,
        "msg.send" => MsgSend,
        "msg.status" => MsgStatus,
        "msg.unschedule" => MsgUnschedule,
        "people.add" => PeopleAdd,
        "people.block" => PeopleBlock,
        "people.blocks" => PeopleBlocks,
        "people.get" => PeopleGet,
        "people.list" => PeopleList,
        "people.remove" => PeopleRemove,
        "people.unblock" => PeopleUnblock,
        "search.conversations" => SearchConversations,
        "search.users" => SearchUsers,
        "sync.changes" => SyncChanges,
    }
}

/// What a reply tells, or why it was refused.
///
/// # Panics
/// If it is no reply.
pub(crate) fn reply_in_protobuf(reply: &[u8]) -> Result<Value, Value> {
    macro_rules! told {
        ($outcome:expr, $($variant:ident)*) => {
            match $outcome {
                Outcome::Error(error) => return Err(serde_json::to_value(error).unwrap()),
                $(Outcome::$variant(told) => serde_json::to_value(told),)*
            }
        };
    }
    let reply = RpcReply::decode(reply).unwrap();
    let told = told! {
        reply.result.expect("a result or a refusal"),
        Changed Conversation Conversations History Status Me Changes Privacy Pins Reactions Bans
        Invitation Invitations Glimpse Joined Requests Cases Visitor Purged Export Erased Held
        Reports Contact Contacts Person Users Found Readers Devices Done Mentions Scheduled
        Rescheduled Unscheduled DeviceIds
    };
    Ok(told.unwrap())
}
