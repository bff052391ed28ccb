//! What of the doings of members goes into the audit log: what only those may do who moderate a conversation.
//!
//! A line goes with the commit of what it tells of; what was refused has none.

use proto::ids::{ConversationId, UserId};
use serde_json::Value;

use super::Actor;
use super::membership::Proposal;
use crate::domain::audit::{AuditBy, AuditLine, AuditOutcome, text_of};
use crate::domain::entry::{Change, EntryKind};

/// Settings that are texts: a line says only that they changed.
const TEXTS: [&str; 4] = ["title", "description", "photo", "tags"];

impl Actor {
    /// A line of what he does. `None`: the server does it for him.
    pub(super) fn noted(
        &self,
        action: &str,
        (conversation, about): (ConversationId, Option<UserId>),
        detail: &Value,
    ) -> Option<Box<AuditLine>> {
        let detail = detail.as_object().cloned().unwrap_or_default();
        Some(Box::new(AuditLine {
            ts_ms: crate::clock::now_ms(),
            by: AuditBy::User {
                user: self.user,
                device: self.device,
            },
            from: self.from?.to_string(),
            action: action.to_owned(),
            conversation: Some(conversation),
            about,
            detail: text_of(detail),
            outcome: AuditOutcome::Done,
        }))
    }

    /// A line of this change, if it is one for moderators.
    pub(super) fn noted_change(
        &self,
        conversation: ConversationId,
        proposal: &Proposal,
    ) -> Option<Box<AuditLine>> {
        let action = call_of(proposal, self.user)?;
        let mut detail = proposal.body.clone();
        let mut about = None;
        if let Some(fields) = detail.as_object_mut() {
            let named = ["uid", "agent"].map(|name| fields.remove(name));
            let named = named.into_iter().flatten().next();
            about = named.and_then(|uid| uid.as_str()?.parse().ok());
            for text in TEXTS {
                if let Some(value) = fields.get_mut(text) {
                    *value = Value::from("…");
                }
            }
        }
        self.noted(action, (conversation, about), &detail)
    }
}

/// The call that makes this change, if it is one for moderators.
fn call_of(proposal: &Proposal, actor: UserId) -> Option<&'static str> {
    let has = |field: &str| proposal.body.get(field).is_some();
    Some(match proposal.kind {
        EntryKind::Removed => "conv.remove",
        EntryKind::Banned => "conv.ban",
        EntryKind::Unbanned => "conv.unban",
        EntryKind::Settings => "conv.settings",
        EntryKind::Left if has("owner") => "conv.leave",
        EntryKind::Joined if proposal.body.get("via")? == "request" => "conv.approve",
        EntryKind::Role if has("want") => return None,
        EntryKind::Role if has("given") => "conv.rights",
        EntryKind::Role if has("former") => "conv.transfer",
        EntryKind::Role => "conv.role",
        EntryKind::Purged if has("uid") => "mod.purge_user",
        EntryKind::Purged => "conv.trim",
        EntryKind::Case if is_of_visitor(proposal, actor) => return None,
        EntryKind::Case => match proposal.body.get("state")?.as_str()? {
            "claimed" => "case.claim",
            "closed" => "case.close",
            _ => "case.transfer",
        },
        _ => return None,
    })
}

/// Is it what the visitor does with his own case?
fn is_of_visitor(proposal: &Proposal, actor: UserId) -> bool {
    proposal.changes.iter().any(|change| match change {
        Change::Settings(settings) => settings.case.is_some_and(|case| case.visitor == actor),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use broker::hooks::Peer;
    use proto::ids::{ConversationKind, DeviceId};
    use serde_json::json;

    use super::*;

    const OTHER: UserId = UserId::from_bytes([2; 16]);

    fn line(from: Option<Peer>, kind: EntryKind, body: Value) -> Option<Box<AuditLine>> {
        let actor = Actor {
            user: UserId::from_bytes([1; 16]),
            device: DeviceId::from_bytes([1; 16]),
            from,
        };
        let changes = Vec::new();
        let proposal = Proposal {
            kind,
            body,
            changes,
        };
        let group = ConversationId::from_parts(ConversationKind::Group, [7; 16]);
        actor.noted_change(group, &proposal)
    }

    const HERE: Option<Peer> = Some(Peer::Local {
        user: 7,
        process: None,
    });

    #[test]
    fn each_change_by_a_moderator_has_its_line() {
        let role = |field: &str| json!({"uid": OTHER, "role": "owner", field: "x"});
        for (kind, body, expected) in [
            (EntryKind::Removed, json!({"uid": OTHER}), "conv.remove"),
            (EntryKind::Banned, json!({"uid": OTHER}), "conv.ban"),
            (EntryKind::Unbanned, json!({"uid": OTHER}), "conv.unban"),
            (EntryKind::Role, role("more"), "conv.role"),
            (EntryKind::Role, role("given"), "conv.rights"),
            (EntryKind::Role, role("former"), "conv.transfer"),
            (EntryKind::Purged, json!({"uid": OTHER}), "mod.purge_user"),
            (
                EntryKind::Joined,
                json!({"uid": OTHER, "via": "request"}),
                "conv.approve",
            ),
            (
                EntryKind::Case,
                json!({"state": "transferred", "agent": OTHER}),
                "case.transfer",
            ),
        ] {
            let line = line(HERE, kind, body).unwrap();
            let told = (line.action.as_str(), line.about, line.from.as_str());
            assert_eq!(told, (expected, Some(OTHER), "local process of user 7"));
        }
        let trimmed = line(HERE, EntryKind::Purged, json!({"from": 1, "to": 2})).unwrap();
        assert_eq!(trimmed.action, "conv.trim");
        assert_eq!(trimmed.detail, r#"{"from":1,"to":2}"#);
    }

    #[test]
    fn texts_of_settings_are_not_in_a_line() {
        let body = json!({"title": "secret", "slow_s": 5});
        let line = line(HERE, EntryKind::Settings, body).unwrap();
        assert_eq!(line.detail, r#"{"slow_s":5,"title":"…"}"#);
    }

    #[test]
    fn what_members_do_themselves_has_none_nor_what_the_server_does_for_them() {
        for (kind, body) in [
            (EntryKind::Left, json!({"uid": OTHER})),
            (EntryKind::Joined, json!({"uid": OTHER, "via": "link"})),
            (EntryKind::Added, json!({"members": []})),
            (EntryKind::Role, json!({"uid": OTHER, "want": "send"})),
        ] {
            assert_eq!(line(HERE, kind, body), None, "{kind:?}");
        }
        let banned = json!({"uid": OTHER});
        assert_eq!(line(None, EntryKind::Banned, banned), None);
    }
}
