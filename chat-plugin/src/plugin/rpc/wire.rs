//! Requests and results of the calls, as they are in JSON. `docs/protocol.md` describes each.

use std::borrow::Cow;
use std::collections::HashMap;

use proto::ids::{ConversationId, ConversationKind, DeviceId, Handle, Seq, UserId};
use proto::quote::quoted;
use proto::topics::{Target, TopicError};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::domain::account::Preferences;
use crate::domain::conversation::{HistoryPolicy, Settings};
use crate::domain::member::Role;
use crate::domain::profile::{Circle, Profile};
use crate::domain::rights::Rights;
use crate::names;
use crate::service::Placed;
use crate::service::history::Overview;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// `@alice`, `u.{uid}`, a bare uid, or `me`.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct UserAsked(pub(super) Target);

impl<'de> Deserialize<'de> for UserAsked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let bare = text.parse().map(Target::User);
        bare.or_else(|_| text.parse())
            .map(Self)
            .map_err(|error: TopicError| {
                serde::de::Error::custom(format!("{error}: {}", quoted(&text)))
            })
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    #[default]
    Group,
    Direct,
    Channel,
    Broadcast,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    #[serde(default)]
    pub(super) kind: Kind,
    pub(super) title: Option<String>,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) history: HistoryPolicy,
    #[serde(default)]
    pub(super) ttl_s: u32,
    #[serde(default)]
    pub(super) photo: String,
    #[serde(default)]
    pub(super) public: bool,
    #[serde(default)]
    pub(super) approval: bool,
    #[serde(default)]
    pub(super) slow_s: u32,
    #[serde(default)]
    pub(super) desk: bool,
    /// Words with spaces between them.
    #[serde(default)]
    pub(super) tags: String,
    #[serde(default)]
    pub(super) members: Vec<UserAsked>,
    #[serde(default)]
    pub(super) roles: HashMap<UserAsked, Role>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Get {
    pub(super) cid: Target,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    pub(super) after: Option<ConversationId>,
    pub(super) limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Add {
    pub(super) cid: Target,
    pub(super) members: Vec<UserAsked>,
    pub(super) role: Option<Role>,
    pub(super) history: Option<HistoryPolicy>,
}

/// As what somebody comes in, if nothing else is said.
pub(super) fn role_in(kind: ConversationKind) -> Role {
    if Role::Reader.is_one_of_many(kind) {
        Role::Reader
    } else {
        Role::Member
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remove {
    pub(super) cid: Target,
    pub(super) member: UserAsked,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Leave {
    pub(super) cid: Target,
    pub(super) owner: Option<UserAsked>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeRole {
    pub(super) cid: Target,
    pub(super) member: UserAsked,
    pub(super) role: Role,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeSettings {
    pub(super) cid: Target,
    pub(super) title: Option<String>,
    pub(super) description: Option<String>,
    pub(super) history: Option<HistoryPolicy>,
    pub(super) ttl_s: Option<u32>,
    pub(super) photo: Option<String>,
    pub(super) public: Option<bool>,
    pub(super) approval: Option<bool>,
    pub(super) slow_s: Option<u32>,
    pub(super) closed: Option<bool>,
    pub(super) desk: Option<bool>,
    /// Words with spaces between them.
    pub(super) tags: Option<String>,
    pub(super) retention_days: Option<u32>,
    pub(super) retention_messages: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskHistory {
    pub(super) cid: Target,
    pub(super) before: Option<Seq>,
    pub(super) after: Option<Seq>,
    pub(super) limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskStatus {
    pub(super) cid: Target,
    pub(super) seq: Seq,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetMe {
    pub(super) name: Option<String>,
    pub(super) status: Option<String>,
    pub(super) photo: Option<String>,
    pub(super) locale: Option<String>,
    /// Words with spaces between them.
    pub(super) tags: Option<String>,
}

/// Who may see something, as a request says it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AudienceAsked {
    pub(super) who: Circle,
    #[serde(default)]
    pub(super) except: Vec<UserAsked>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetPrivacy {
    pub(super) presence: Option<AudienceAsked>,
    pub(super) last_seen: Option<AudienceAsked>,
    pub(super) profile: Option<AudienceAsked>,
    pub(super) search: Option<bool>,
    pub(super) delivered: Option<bool>,
    pub(super) read: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskChanges {
    pub(super) ver: Option<u64>,
    pub(super) next: Option<String>,
    pub(super) limit: Option<usize>,
    #[serde(default)]
    pub(super) badge: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Prefer {
    pub(super) cid: Target,
    pub(super) muted_until: Option<u64>,
    pub(super) archived: Option<bool>,
    pub(super) pinned: Option<bool>,
    pub(super) watch: Option<bool>,
}

/// What changed in the list of conversations.
#[derive(Serialize)]
pub(super) struct Changes {
    /// Everything up to this version is known now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ver: Option<u64>,
    pub(super) conversations: Vec<ChangedConversation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) people: Vec<Person>,
    /// The own profile, privacy or devices.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) me: bool,
    /// There is another page, which begins here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
    /// Unread messages over all conversations that are not muted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) badge: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct ChangedConversation {
    pub(super) cid: ConversationId,
    pub(super) head: Seq,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) left: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) conversation: Option<Box<Conversation>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) hidden: Vec<Seq>,
}

/// What a change came to.
#[derive(Serialize)]
pub(super) struct Changed {
    pub(super) cid: ConversationId,
    /// Of the entry, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seq: Option<Seq>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) dup: bool,
    /// When it will be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<u64>,
    /// It waits for a moderator.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) held: bool,
}

impl Changed {
    /// Something changed, or did not have to, of which the log tells nothing.
    pub(super) fn without_entry(cid: ConversationId) -> Self {
        Self {
            cid,
            seq: None,
            dup: false,
            at: None,
            held: false,
        }
    }

    /// A moderator decides on it, or has rejected it.
    pub(super) fn held(cid: ConversationId) -> Self {
        Self {
            held: true,
            ..Self::without_entry(cid)
        }
    }
}

impl From<Placed> for Changed {
    fn from(place: Placed) -> Self {
        Self {
            cid: place.conversation,
            seq: Some(place.seq),
            dup: place.duplicate,
            at: None,
            held: false,
        }
    }
}

#[derive(Serialize)]
pub(super) struct Named {
    pub(super) uid: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handle: Option<Handle>,
    pub(super) name: String,
}

impl Named {
    pub(super) fn new(uid: UserId, profile: Option<names::Profile>) -> Self {
        let (handle, name) = profile
            .map(|profile| (profile.handle, profile.name))
            .unzip();
        Self {
            uid,
            handle,
            name: name.as_deref().unwrap_or_default().to_owned(),
        }
    }
}

/// A conversation as its caller sees it.
#[derive(Serialize)]
pub(super) struct Conversation {
    pub(super) cid: ConversationId,
    pub(super) kind: ConversationKind,
    #[serde(flatten)]
    pub(super) settings: Settings,
    /// Support cases that wait.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) queued: usize,
    /// How many ask to join.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) requests: usize,
    /// Of a channel: how many there are. Of a broadcast list: to how many it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) readers: Option<u64>,
    pub(super) role: Role,
    pub(super) rights: Rights,
    pub(super) head: Seq,
    pub(super) mseq: u64,
    pub(super) ts: u64,
    pub(super) read: Seq,
    pub(super) private_read: Seq,
    pub(super) delivered: Seq,
    pub(super) unread: u64,
    pub(super) mentions: u64,
    pub(super) unread_flag: bool,
    #[serde(flatten)]
    pub(super) preferences: Preferences,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) members: Option<Vec<ListedMember>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl From<Overview> for Conversation {
    fn from(overview: Overview) -> Self {
        let Overview {
            conversation,
            member,
            marks,
            preferences,
            unread,
            mentions,
            peer,
            requests,
            queued,
            readers,
        } = overview;
        let kind = conversation.id.kind();
        Self {
            cid: conversation.id,
            kind,
            settings: conversation.settings,
            queued,
            requests,
            readers,
            role: member.role,
            rights: member.rights(kind),
            head: conversation.head,
            mseq: conversation.mseq,
            ts: conversation.ts_ms,
            read: marks.read,
            private_read: marks.private_read,
            delivered: marks.delivered(),
            unread,
            mentions,
            unread_flag: marks.unread_flag,
            preferences,
            peer: peer.map(|(uid, profile)| Named::new(uid, profile)),
            members: None,
        }
    }
}

#[derive(Serialize)]
pub(super) struct ListedMember {
    #[serde(flatten)]
    pub(super) user: Named,
    pub(super) role: Role,
    /// What admins gave beside the role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) given: Option<Rights>,
    /// What the member wants of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) want: Option<Rights>,
    pub(super) joined: Seq,
    pub(super) delivered: Seq,
    pub(super) read: Seq,
}

#[derive(Serialize)]
pub(super) struct Listing {
    pub(super) conversations: Vec<Conversation>,
    pub(super) more: bool,
}

#[derive(Serialize)]
pub(super) struct HistoryPage {
    pub(super) entries: Vec<Box<RawValue>>,
    pub(super) more: bool,
    pub(super) head: Seq,
}

#[derive(Serialize)]
pub(super) struct StatusReply {
    pub(super) cid: ConversationId,
    pub(super) seq: Seq,
    pub(super) delivered: u32,
    pub(super) read: u32,
    pub(super) of: u32,
    pub(super) members: Vec<MemberReply>,
}

#[derive(Serialize)]
pub(super) struct MemberReply {
    pub(super) uid: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handle: Option<Handle>,
    pub(super) delivered: bool,
    pub(super) read: bool,
    pub(super) ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delivered_ts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) read_ts: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct Me {
    pub(super) uid: UserId,
    pub(super) handle: Handle,
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) profile: Shown,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) locale: String,
    pub(super) unread: u64,
}

/// What of a profile others may see.
#[derive(Serialize)]
pub(super) struct Shown {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) photo: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tags: Vec<String>,
}

impl From<Profile> for Shown {
    fn from(profile: Profile) -> Self {
        Self {
            status: profile.status,
            photo: profile.photo,
            tags: profile.tags,
        }
    }
}

/// A user as the caller may see him.
#[derive(Serialize)]
pub(super) struct PersonShown {
    #[serde(flatten)]
    pub(super) person: Person,
    #[serde(flatten)]
    pub(super) profile: Shown,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) deleted: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetHandle {
    pub(super) handle: Handle,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revoke {
    pub(super) device: DeviceId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteMe {
    pub(super) password: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Search {
    pub(super) q: String,
    pub(super) limit: Option<usize>,
}

#[derive(Serialize)]
pub(super) struct Found {
    pub(super) conversations: Vec<Hit>,
}

/// A public conversation that was found.
#[derive(Serialize)]
pub(super) struct Hit {
    pub(super) cid: ConversationId,
    pub(super) kind: ConversationKind,
    pub(super) title: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) photo: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tags: Vec<String>,
    pub(super) members: u64,
    pub(super) approval: bool,
}

#[derive(Serialize)]
pub(super) struct Users {
    pub(super) users: Vec<Named>,
}

#[derive(Serialize)]
pub(super) struct Devices {
    pub(super) devices: Vec<ListedDevice>,
}

#[derive(Serialize)]
pub(super) struct ListedDevice {
    pub(super) id: DeviceId,
    pub(super) client_id: String,
    pub(super) first_seen: u64,
    pub(super) last_seen: u64,
    pub(super) connected: bool,
    /// The one that asks.
    pub(super) current: bool,
}

/// It is done.
#[derive(Serialize)]
pub(super) struct Done {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskUser {
    pub(super) user: UserAsked,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AddContact {
    pub(super) user: UserAsked,
    #[serde(default)]
    pub(super) called: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListPeople {
    pub(super) after: Option<UserId>,
    pub(super) limit: Option<usize>,
}

/// What the caller has decided about a user.
#[derive(Serialize)]
pub(super) struct Person {
    #[serde(flatten)]
    pub(super) user: Named,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) called: String,
    pub(super) contact: bool,
    pub(super) blocked: bool,
}

#[derive(Serialize)]
pub(super) struct Contacts {
    pub(super) contacts: Vec<Person>,
    pub(super) more: bool,
}
