//! Remote calls: JSON in, JSON out, to the asking connection only.
//!
//! In 5.0 the reply goes to the Response Topic with the Correlation Data; in 3.1.1 to `chat/me/rpc/{req}`, where `req`
//! is the last level of the topic of the call. A method that changes something is idempotent by what names the request:
//! the `req` and the Correlation Data together.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use broker::codec::packet::{Publish, Qos};
use broker::hooks::{Access, Hooks};
use bytes::Bytes;
use bytestring::ByteString;
use proto::error::ErrorName;
use proto::ids::{ConversationId, Handle, MessageId, Seq, UserId, digest16};
use proto::rpc::{RawReply, Reply, parse_request};
use proto::topics::{self, RequestId, Target};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::peer::Peer;
use super::{ChatPlugin, json_publish};
use crate::domain::conversation::{HistoryPolicy, Settings};
use crate::domain::member::{Marks, Member, Role};
use crate::names::Profile;
use crate::render::Line;
use crate::service::history::{Overview, Window};
use crate::service::membership::{Request, SettingsChange};
use crate::service::{Placed, Refusal};

/// Members that `conv.get` lists.
const MEMBERS_LISTED_MAX: usize = 1_024;

/// Where a reply goes.
struct Address {
    topic: String,
    correlation: Option<Bytes>,
    qos: Qos,
    identifiers: Vec<u32>,
}

impl ChatPlugin {
    /// Runs a call and sends its reply. A refusal is told in the reply; where no reply can go, it is returned.
    pub(super) async fn call(
        &self,
        peer: &Arc<Peer>,
        method: &str,
        req: Option<RequestId>,
        publish: &Publish,
    ) -> Result<(), Refusal> {
        Self::check_rate(peer)?;
        let address = self.address(peer, req.as_ref(), publish)?;
        if !peer.reader.takes_replies() {
            return Err(Refusal::Limit("too many replies wait; read them first"));
        }
        let request = Request {
            actor: peer.actor,
            id: Self::request_id(method, req.as_ref(), publish)?,
            digest: digest16(&[method.as_bytes(), &publish.payload]),
        };
        let result = self.run(peer, method, request, &publish.payload).await;
        let Some(address) = address else {
            return result.map(|_| ());
        };
        let reply: RawReply = match result {
            Ok(result) => Reply::Ok(result),
            Err(refusal @ Refusal::Store(_)) => return Err(refusal),
            Err(refusal) => Reply::refused(refusal.name(), refusal.to_string()),
        };
        let mut message = json_publish(&address.topic, &reply);
        message.properties.correlation_data = address.correlation;
        let around = address.topic.len() + address.identifiers.len() * 5 + 64;
        let correlation = message.properties.correlation_data.as_ref();
        let whole = message.payload.len() + around + correlation.map_or(0, Bytes::len);
        if whole > packet_of(peer) {
            let reply = RawReply::refused(ErrorName::Limit, "larger than your Maximum Packet Size");
            message.payload = json_publish(&address.topic, &reply).payload;
        }
        peer.reader
            .reply(Arc::new(message), address.qos, address.identifiers);
        Ok(())
    }

    fn address(
        &self,
        peer: &Peer,
        req: Option<&RequestId>,
        publish: &Publish,
    ) -> Result<Option<Address>, Refusal> {
        let correlation = publish.properties.correlation_data.clone();
        let named = match (&publish.properties.response_topic, req) {
            (Some(topic), _) if !is_chat(topic) => {
                if !self.authorize(&peer.reader.client, Access::Publish, topic) {
                    return Err(Refusal::Forbidden(
                        "you may not publish to the response topic",
                    ));
                }
                let topic = topic.to_string();
                return Ok(Some(Address {
                    topic,
                    correlation,
                    qos: Qos::AtLeastOnce,
                    identifiers: Vec::new(),
                }));
            }
            (Some(topic), _) => topics::parse_rpc_reply_topic(topic)
                .ok_or_else(|| Refusal::format("the response topic must be chat/me/rpc/{req}"))?,
            (None, Some(req)) => req.clone(),
            (None, None) => return Ok(None),
        };
        let Some(matched) = peer.reader.reply_subscription(named.as_str()) else {
            return Ok(None);
        };
        let topic = topics::rpc_reply_topic(&named);
        Ok(Some(Address {
            topic,
            correlation,
            qos: matched.qos,
            identifiers: matched.identifiers,
        }))
    }

    /// The same for every retry of a request; new for one that has no name.
    fn request_id(
        method: &str,
        req: Option<&RequestId>,
        publish: &Publish,
    ) -> Result<MessageId, Refusal> {
        let response = publish
            .properties
            .response_topic
            .as_deref()
            .unwrap_or_default();
        let correlation = publish
            .properties
            .correlation_data
            .as_deref()
            .unwrap_or_default();
        let req = req.map_or(response, RequestId::as_str);
        if req.is_empty() && correlation.is_empty() {
            return Self::new_mid();
        }
        let digest = digest16(&[method.as_bytes(), req.as_bytes(), correlation]);
        format!("rpc:{}", UserId::from_bytes(digest))
            .parse()
            .map_err(|error| Refusal::format(format!("{error}")))
    }

    async fn run(
        &self,
        peer: &Peer,
        method: &str,
        request: Request,
        payload: &[u8],
    ) -> Result<Box<RawValue>, Refusal> {
        match method {
            "conv.create" => raw(&self
                .conv_create(peer, request, self.parse(payload)?)
                .await?),
            "conv.get" => raw(&self.conv_get(peer, self.parse(payload)?).await?),
            "conv.list" => raw(&self.conv_list(peer, self.parse(payload)?).await?),
            "conv.add" => raw(&self.conv_add(peer, request, self.parse(payload)?).await?),
            "conv.remove" => raw(&self
                .conv_remove(peer, request, self.parse(payload)?)
                .await?),
            "conv.leave" => raw(&self.conv_leave(peer, request, self.parse(payload)?).await?),
            "conv.role" => raw(&self.conv_role(peer, request, self.parse(payload)?).await?),
            "conv.settings" => raw(&self
                .conv_settings(peer, request, self.parse(payload)?)
                .await?),
            "msg.history" => raw(&self.msg_history(peer, self.parse(payload)?).await?),
            "msg.status" => raw(&self.msg_status(peer, self.parse(payload)?).await?),
            "me.get" => raw(&self.me_get(peer, &self.parse(payload)?).await?),
            "me.set" => raw(&self.me_set(peer, self.parse(payload)?).await?),
            _ => Err(Refusal::UnknownMethod),
        }
    }

    fn parse<'a, T: Deserialize<'a>>(&self, payload: &'a [u8]) -> Result<T, Refusal> {
        if payload.len() > self.payload_limits.body_bytes_max {
            return Err(Refusal::format("the request is too large"));
        }
        parse_request(payload, self.payload_limits.json_depth_max).map_err(Refusal::format)
    }

    async fn conv_create(
        &self,
        peer: &Peer,
        request: Request,
        asked: Create,
    ) -> Result<Conversation, Refusal> {
        let Create {
            kind,
            title,
            description,
            history,
            members,
            roles,
        } = asked;
        match kind {
            Kind::Direct => {
                let [other] = members.as_slice() else {
                    return Err(Refusal::format(
                        "a direct conversation has one other member",
                    ));
                };
                if title.is_some() || !roles.is_empty() {
                    return Err(Refusal::format(
                        "a direct conversation has neither title nor roles",
                    ));
                }
                let other = self.service.user_of(peer.actor, &other.0).await?;
                let cid = self.service.direct(peer.actor, other).await?;
                match self.conversation(peer, cid).await {
                    Err(Refusal::NotFound(_)) => self.unused(peer.actor.user, other, cid).await,
                    found => found,
                }
            }
            Kind::Group => {
                let mut with_roles = Vec::new();
                for (user, role) in roles {
                    with_roles.push((self.service.user_of(peer.actor, &user.0).await?, role));
                }
                let members = self.users(peer, &members).await?;
                if with_roles.iter().any(|(user, _)| !members.contains(user)) {
                    return Err(Refusal::format(
                        "a role for somebody who is not among the members",
                    ));
                }
                let role = |user: &UserId| {
                    with_roles
                        .iter()
                        .find(|(known, _)| known == user)
                        .map(|(_, role)| *role)
                };
                let members = members
                    .into_iter()
                    .map(|user| (user, role(&user).unwrap_or(Role::Member)))
                    .collect();
                let settings = Settings {
                    title: title.unwrap_or_default(),
                    description,
                    history,
                };
                let place = self
                    .service
                    .create_group(request, settings, members)
                    .await?;
                self.conversation(peer, place.conversation).await
            }
        }
    }

    async fn conv_add(
        &self,
        peer: &Peer,
        request: Request,
        asked: Add,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let users = self.users(peer, &asked.members).await?;
        let members = users.into_iter().map(|user| (user, asked.role)).collect();
        self.service
            .add_members(request, cid, members)
            .await
            .map(Changed::from)
    }

    async fn conv_remove(
        &self,
        peer: &Peer,
        request: Request,
        asked: Remove,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let user = self.service.user_of(peer.actor, &asked.member.0).await?;
        self.service
            .remove_member(request, cid, user)
            .await
            .map(Changed::from)
    }

    async fn conv_leave(
        &self,
        peer: &Peer,
        request: Request,
        asked: Leave,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let heir = match &asked.owner {
            Some(heir) => Some(self.service.user_of(peer.actor, &heir.0).await?),
            None => None,
        };
        self.service
            .leave(request, cid, heir)
            .await
            .map(Changed::from)
    }

    async fn conv_role(
        &self,
        peer: &Peer,
        request: Request,
        asked: ChangeRole,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let user = self.service.user_of(peer.actor, &asked.member.0).await?;
        self.service
            .set_role(request, cid, user, asked.role)
            .await
            .map(Changed::from)
    }

    async fn conv_settings(
        &self,
        peer: &Peer,
        request: Request,
        asked: ChangeSettings,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let ChangeSettings {
            title,
            description,
            history,
            ..
        } = asked;
        let change = SettingsChange {
            title,
            description,
            history,
        };
        self.service
            .change_settings(request, cid, change)
            .await
            .map(Changed::from)
    }

    async fn conv_get(&self, peer: &Peer, asked: Get) -> Result<Conversation, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        self.conversation(peer, cid).await
    }

    async fn conversation(
        &self,
        peer: &Peer,
        cid: ConversationId,
    ) -> Result<Conversation, Refusal> {
        let overview = self.service.overview(peer.actor, cid).await?;
        let live = self.service.conversations.load(cid).await?;
        let mut present: Vec<(Member, Marks)> = live.map(|live| live.members()).unwrap_or_default();
        present.retain(|(member, _)| member.is_present());
        present.sort_by_key(|(member, _)| member.user);
        let mut members = Vec::new();
        for (member, marks) in present.into_iter().take(MEMBERS_LISTED_MAX) {
            members.push(ListedMember {
                user: self.named(member.user).await?,
                role: member.role,
                joined: member.joined,
                delivered: marks.delivered(),
                read: marks.read,
            });
        }
        Ok(Conversation {
            members: Some(members),
            ..listed(overview)
        })
    }

    /// A direct conversation in which nothing has been written.
    async fn unused(
        &self,
        user: UserId,
        other: UserId,
        cid: ConversationId,
    ) -> Result<Conversation, Refusal> {
        let mut members = Vec::new();
        for one in [user, other].iter().take(if user == other { 1 } else { 2 }) {
            members.push(ListedMember {
                user: self.named(*one).await?,
                role: Role::Member,
                joined: Seq::ZERO,
                delivered: Seq::ZERO,
                read: Seq::ZERO,
            });
        }
        Ok(Conversation {
            cid,
            kind: cid.kind(),
            title: String::new(),
            description: String::new(),
            history: HistoryPolicy::All,
            role: Role::Member,
            head: Seq::ZERO,
            mseq: 0,
            ts: 0,
            read: Seq::ZERO,
            private_read: Seq::ZERO,
            delivered: Seq::ZERO,
            unread: 0,
            unread_flag: false,
            peer: Some(self.named(other).await?),
            members: Some(members),
        })
    }

    async fn conv_list(&self, peer: &Peer, asked: List) -> Result<Listing, Refusal> {
        let (list, more) = self
            .service
            .list(peer.actor, asked.after, asked.limit.unwrap_or(100))
            .await?;
        Ok(Listing {
            conversations: list.into_iter().map(listed).collect(),
            more,
        })
    }

    async fn msg_history(&self, peer: &Peer, asked: AskHistory) -> Result<HistoryPage, Refusal> {
        let window = match (asked.before, asked.after) {
            (Some(_), Some(_)) => return Err(Refusal::format("before or after, not both")),
            (Some(seq), None) => Window::Before(seq),
            (None, Some(seq)) => Window::After(seq),
            (None, None) => Window::Before(Seq::MAX),
        };
        let cid = self.cid(peer, &asked.cid).await?;
        // A quarter of the room for bodies, which JSON may lengthen; each entry takes some 400 bytes beside.
        let half = room_of(peer) / 2;
        let limit = asked.limit.unwrap_or(50).min(half / 400);
        let history = self
            .service
            .history(peer.actor, cid, window, (limit, half / 2))
            .await?;
        let mut entries = Vec::with_capacity(history.entries.len());
        for (entry, handle) in history.entries {
            let json = Line::new(Arc::new(entry), handle).to_json();
            entries.push(
                RawValue::from_string(json).map_err(|error| Refusal::format(error.to_string()))?,
            );
        }
        Ok(HistoryPage {
            entries,
            more: history.more,
            head: history.head,
        })
    }

    async fn msg_status(&self, peer: &Peer, asked: AskStatus) -> Result<StatusReply, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let status = self.service.status(peer.actor, cid, asked.seq).await?;
        let members = status.members.into_iter().map(|member| MemberReply {
            uid: member.user,
            handle: member.handle,
            delivered: member.delivered,
            read: member.read,
            ts: member.moved_ms,
        });
        Ok(StatusReply {
            cid,
            seq: asked.seq,
            delivered: status.delivered,
            read: status.read,
            of: status.of,
            members: members.collect(),
        })
    }

    async fn me_get(&self, peer: &Peer, _: &Nothing) -> Result<Me, Refusal> {
        let user = self.service.me(peer.actor).await?;
        let unread = self.service.unread_in_all(peer.actor).await?;
        Ok(Me {
            uid: user.id,
            handle: user.handle,
            name: user.name,
            unread,
        })
    }

    async fn me_set(&self, peer: &Peer, asked: SetMe) -> Result<Me, Refusal> {
        let user = self
            .service
            .set_name(&self.accounts, peer.actor, asked.name)
            .await?;
        let unread = self.service.unread_in_all(peer.actor).await?;
        Ok(Me {
            uid: user.id,
            handle: user.handle,
            name: user.name,
            unread,
        })
    }

    async fn users(&self, peer: &Peer, asked: &[UserAsked]) -> Result<Vec<UserId>, Refusal> {
        if asked.len() > super::size(self.service.config.group_members_max) {
            return Err(Refusal::Limit("too many members"));
        }
        let mut users: Vec<UserId> = Vec::with_capacity(asked.len());
        for one in asked {
            let user = self.service.user_of(peer.actor, &one.0).await?;
            if !users.contains(&user) {
                users.push(user);
            }
        }
        Ok(users)
    }

    async fn cid(&self, peer: &Peer, target: &Target) -> Result<ConversationId, Refusal> {
        if let Target::Conversation(cid) = target {
            return Ok(*cid);
        }
        let other = self.service.user_of(peer.actor, target).await?;
        Ok(ConversationId::direct(peer.actor.user, other))
    }

    async fn named(&self, uid: UserId) -> Result<Named, Refusal> {
        Ok(Named::new(uid, self.service.names.profile(uid).await?))
    }
}

/// Bytes of a payload that fit into a packet for this client, with its properties.
fn room_of(peer: &Peer) -> usize {
    const OVERHEAD: usize = 1_024;
    let packet = packet_of(peer);
    packet - OVERHEAD.min(packet / 4)
}

/// Bytes of the largest packet that this client takes.
fn packet_of(peer: &Peer) -> usize {
    let packet = peer.reader.client.packet_bytes_max;
    packet.map_or(usize::MAX, super::size)
}

fn is_chat(topic: &ByteString) -> bool {
    topic.split('/').next() == Some(topics::ROOT)
}

fn raw(result: &impl Serialize) -> Result<Box<RawValue>, Refusal> {
    to_raw_value(result).map_err(|error| Refusal::format(error.to_string()))
}

fn listed(overview: Overview) -> Conversation {
    let Overview {
        conversation,
        member,
        marks,
        unread,
        peer,
    } = overview;
    Conversation {
        cid: conversation.id,
        kind: conversation.id.kind(),
        title: conversation.settings.title,
        description: conversation.settings.description,
        history: conversation.settings.history,
        role: member.role,
        head: conversation.head,
        mseq: conversation.mseq,
        ts: conversation.ts_ms,
        read: marks.read,
        private_read: marks.private_read,
        delivered: marks.delivered(),
        unread,
        unread_flag: marks.unread_flag,
        peer: peer.map(|(uid, profile)| Named::new(uid, profile)),
        members: None,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// `@alice`, `u.{uid}`, a bare uid, or `me`.
#[derive(PartialEq, Eq, Hash)]
struct UserAsked(Target);

impl<'de> Deserialize<'de> for UserAsked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let bare = text.parse().map(Target::User);
        bare.or_else(|_| text.parse())
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Group,
    Direct,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    #[serde(default)]
    kind: Kind,
    title: Option<String>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    history: HistoryPolicy,
    #[serde(default)]
    members: Vec<UserAsked>,
    #[serde(default)]
    roles: HashMap<UserAsked, Role>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    cid: Target,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    after: Option<ConversationId>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    cid: Target,
    members: Vec<UserAsked>,
    #[serde(default = "member")]
    role: Role,
}

fn member() -> Role {
    Role::Member
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {
    cid: Target,
    member: UserAsked,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Leave {
    cid: Target,
    owner: Option<UserAsked>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeRole {
    cid: Target,
    member: UserAsked,
    role: Role,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeSettings {
    cid: Target,
    title: Option<String>,
    description: Option<String>,
    history: Option<HistoryPolicy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskHistory {
    cid: Target,
    before: Option<Seq>,
    after: Option<Seq>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskStatus {
    cid: Target,
    seq: Seq,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetMe {
    name: String,
}

/// What a change came to.
#[derive(Serialize)]
struct Changed {
    cid: ConversationId,
    seq: Seq,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dup: bool,
}

impl From<Placed> for Changed {
    fn from(place: Placed) -> Self {
        Self {
            cid: place.conversation,
            seq: place.seq,
            dup: place.duplicate,
        }
    }
}

#[derive(Serialize)]
struct Named {
    uid: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<Handle>,
    name: String,
}

impl Named {
    fn new(uid: UserId, profile: Option<Profile>) -> Self {
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
struct Conversation {
    cid: ConversationId,
    kind: proto::ids::ConversationKind,
    title: String,
    description: String,
    history: HistoryPolicy,
    role: Role,
    head: Seq,
    mseq: u64,
    ts: u64,
    read: Seq,
    private_read: Seq,
    delivered: Seq,
    unread: u64,
    unread_flag: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<ListedMember>>,
}

#[derive(Serialize)]
struct ListedMember {
    #[serde(flatten)]
    user: Named,
    role: Role,
    joined: Seq,
    delivered: Seq,
    read: Seq,
}

#[derive(Serialize)]
struct Listing {
    conversations: Vec<Conversation>,
    more: bool,
}

#[derive(Serialize)]
struct HistoryPage {
    entries: Vec<Box<RawValue>>,
    more: bool,
    head: Seq,
}

#[derive(Serialize)]
struct StatusReply {
    cid: ConversationId,
    seq: Seq,
    delivered: u32,
    read: u32,
    of: u32,
    members: Vec<MemberReply>,
}

#[derive(Serialize)]
struct MemberReply {
    uid: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<Handle>,
    delivered: bool,
    read: bool,
    ts: u64,
}

#[derive(Serialize)]
struct Me {
    uid: UserId,
    handle: Handle,
    name: String,
    unread: u64,
}
