//! What visitors of a support desk may do: talk in their cases, and nothing else. They are nobody whom an operator knows.

use proto::ids::{ConversationId, ConversationKind};
use proto::topics::{MessageAction, PublishTopic, Target};

use crate::service::Refusal;

/// What a visitor is told of everything else.
pub(super) const REFUSED: Refusal = Refusal::Forbidden("a visitor may only talk to a desk");

/// Methods that a visitor may call.
pub(super) const MAY_CALL: [&str; 14] = [
    "case.open",
    "case.close",
    "conv.get",
    "conv.list",
    "conv.prefs",
    "me.get",
    "msg.delete",
    "msg.edit",
    "msg.history",
    "msg.pins",
    "msg.react",
    "msg.reactions",
    "msg.status",
    "sync.changes",
];

/// May a visitor publish there?
pub(super) fn may_publish(topic: &PublishTopic<'_>) -> bool {
    let is_case = |id: &ConversationId| id.kind() == ConversationKind::Support;
    match topic {
        PublishTopic::To { target, .. } => {
            matches!(target, Target::Conversation(id) if is_case(id))
        }
        PublishTopic::Message { cid, action, .. } => {
            // As the calls above: what is pinned and reported is for people of the server.
            is_case(cid) && !matches!(action, MessageAction::Pin | MessageAction::Report)
        }
        PublishTopic::Read { cid, .. }
        | PublishTopic::Recv { cid, .. }
        | PublishTopic::Unread { cid, .. }
        | PublishTopic::Typing { cid, .. } => is_case(cid),
        PublishTopic::Rpc { .. } => true, // each method says
        PublishTopic::Presence => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_speaks_in_cases_only() {
        let may = |topic: &str| may_publish(&PublishTopic::parse(topic).unwrap());
        let case = "s.01arz3ndektsv4rrffq69g5fav";
        let group = "g.01arz3ndektsv4rrffq69g5fav";
        for (with, allowed) in [(case, true), (group, false)] {
            assert_eq!(may(&format!("chat/to/{with}")), allowed);
            assert_eq!(may(&format!("chat/to/{with}/mid")), allowed);
            assert_eq!(may(&format!("chat/c/{with}/m/1/reply")), allowed);
            assert_eq!(may(&format!("chat/c/{with}/read")), allowed);
            assert_eq!(may(&format!("chat/c/{with}/typing")), allowed);
        }
        for action in ["pin", "report"] {
            assert!(!may(&format!("chat/c/{case}/m/1/{action}")), "{action}");
        }
        for topic in ["chat/to/@alice", "chat/to/me", "chat/me/presence"] {
            assert!(!may(topic), "{topic}");
        }
    }
}
