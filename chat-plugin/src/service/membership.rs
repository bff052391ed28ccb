//! Groups: making them, and who is in them. Every change is an entry of the log.

use bytes::Bytes;
use proto::ids::{ConversationId, ConversationKind, MessageId, Seq, UserId};
use serde_json::json;
use std::borrow::Cow;

use super::send::placed;
use super::{Actor, Placed, Refusal, Service};
use crate::conversations::Sight;
use crate::domain::conversation::{HistoryPolicy, Settings};
use crate::domain::entry::{Basis, BodyFormat, Change, Draft, EntryKind, Mentioned, Outcome};
use crate::domain::member::{Member, Role};
use crate::domain::permission::{Action, allows};
use crate::store::StoreError;

/// Longest title and description, in bytes.
const TITLE_MAX: usize = 256;
const DESCRIPTION_MAX: usize = 2_048;

/// A request that changes something: its id makes it idempotent.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub actor: Actor,
    /// The same for every retry of this request.
    pub id: MessageId,
    /// Of the method and what it was asked: the same id with another digest is a conflict.
    pub digest: [u8; 16],
}

impl Request {
    /// The group that this request makes, or made.
    pub fn group(&self) -> ConversationId {
        let id = self.id.as_str().as_bytes();
        ConversationId::requested(ConversationKind::Group, self.actor.user, id)
    }
}

/// New values of settings; absent ones stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsChange {
    /// At most 256 bytes.
    pub title: Option<String>,
    /// At most 2,048 bytes.
    pub description: Option<String>,
    /// What later members may see.
    pub history: Option<HistoryPolicy>,
    /// Seconds that later messages last; 0: for ever.
    pub ttl_s: Option<u32>,
    /// Days that messages stay; 0: for ever. For owners.
    pub retention_days: Option<u32>,
    /// So many of the newest messages stay; 0: all. For owners.
    pub retention_messages: Option<u32>,
}

/// A change before it has been judged against the members of the moment.
pub(super) struct Proposal {
    pub(super) kind: EntryKind,
    pub(super) body: serde_json::Value,
    pub(super) changes: Vec<Change>,
}

impl Service {
    /// Makes a group with its owner and first members. The same request makes it once.
    ///
    /// # Errors
    /// Why not.
    pub async fn create_group(
        &self,
        request: Request,
        settings: Settings,
        members: Vec<(UserId, Role)>,
    ) -> Result<Placed, Refusal> {
        let owner = request.actor.user;
        check_settings(&settings)?;
        let members: Vec<(UserId, Role)> = members
            .into_iter()
            .filter(|(user, _)| *user != owner)
            .collect();
        self.check_group_size(members.len() + 1)?;
        if members.iter().any(|(_, role)| *role == Role::Owner) {
            return Err(Refusal::format("a group is made with one owner: its maker"));
        }
        self.invitations.take(owner)?;
        self.check_joinable(std::iter::once(&owner).chain(members.iter().map(|(user, _)| user)))
            .await?;
        let all: Vec<(UserId, Role)> = std::iter::once((owner, Role::Owner))
            .chain(members)
            .collect();
        let conversation = request.group();
        let listed: Vec<_> = all
            .iter()
            .map(|(user, role)| json!({"uid": user, "role": role}))
            .collect();
        let body = json!({"title": settings.title, "members": listed});
        let joins = all.iter().map(|(user, role)| Change::Join {
            user: *user,
            role: *role,
            history_from: Some(Seq::new(1)),
        });
        let changes = joins.chain([Change::Settings(settings)]).collect();
        let proposal = Proposal {
            kind: EntryKind::Created,
            body,
            changes,
        };
        let draft = draft(&request, conversation, Basis::Create, proposal);
        let outcome = self.append_change(&draft).await?;
        self.follow_own(&draft, outcome);
        outcome
            .and_then(|outcome| placed(&draft, outcome))
            .unwrap_or(Err(Refusal::BUSY))
    }

    /// The direct conversation with a user: its id, whether or not it has been used yet.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there is no such user.
    pub async fn direct(&self, actor: Actor, other: UserId) -> Result<ConversationId, Refusal> {
        if !self.names.exists(other).await? {
            return Err(Refusal::NotFound(Cow::Borrowed("no such user")));
        }
        Ok(ConversationId::direct(actor.user, other))
    }

    /// Adds members. Those who are members already are left as they are.
    ///
    /// # Errors
    /// Why not.
    pub async fn add_members(
        &self,
        request: Request,
        id: ConversationId,
        users: Vec<(UserId, Role)>,
    ) -> Result<Placed, Refusal> {
        if users.is_empty() {
            return Err(Refusal::format("nobody to add"));
        }
        self.invitations.take(request.actor.user)?;
        self.check_joinable(users.iter().map(|(user, _)| user))
            .await?;
        self.change(&request, id, |sight, members, settings| {
            for (_, role) in &users {
                permit(id, sight, Action::Add(*role))?;
            }
            let is_member = |user: &UserId| {
                members
                    .iter()
                    .any(|member| member.user == *user && member.is_present())
            };
            let coming: Vec<_> = users
                .iter()
                .filter(|(user, _)| !is_member(user))
                .copied()
                .collect();
            if coming.is_empty() {
                return Ok(None);
            }
            let present = members.iter().filter(|member| member.is_present()).count();
            self.check_group_size(present + coming.len())?;
            let at = sight.head.next();
            let joins = coming.iter().map(|(user, role)| Change::Join {
                user: *user,
                role: *role,
                history_from: history_from(settings.history, at),
            });
            let listed: Vec<_> = coming
                .iter()
                .map(|(user, role)| json!({"uid": user, "role": role}))
                .collect();
            Ok(Some(Proposal {
                kind: EntryKind::Added,
                body: json!({"members": listed}),
                changes: joins.collect(),
            }))
        })
        .await
    }

    /// Removes a member.
    ///
    /// # Errors
    /// Why not.
    pub async fn remove_member(
        &self,
        request: Request,
        id: ConversationId,
        user: UserId,
    ) -> Result<Placed, Refusal> {
        if user == request.actor.user {
            return self.leave(request, id, None).await;
        }
        self.change(&request, id, |sight, members, _| {
            let theirs = present(members, user)?;
            permit(id, sight, Action::Remove(theirs.role))?;
            let changes = vec![Change::Leave { user }];
            Ok(Some(Proposal {
                kind: EntryKind::Removed,
                body: json!({"uid": user}),
                changes,
            }))
        })
        .await
    }

    /// Leaves. The last owner hands over to `heir`, or is refused.
    ///
    /// # Errors
    /// Why not.
    pub async fn leave(
        &self,
        request: Request,
        id: ConversationId,
        heir: Option<UserId>,
    ) -> Result<Placed, Refusal> {
        self.leave_to(request, id, |_| heir).await
    }

    /// Leaves; `heir` says to whom the last owner hands over.
    pub(super) async fn leave_to(
        &self,
        request: Request,
        id: ConversationId,
        heir: impl Fn(&[Member]) -> Option<UserId>,
    ) -> Result<Placed, Refusal> {
        let user = request.actor.user;
        self.change(&request, id, |sight, members, _| {
            permit(id, sight, Action::Leave)?;
            let mut changes = vec![Change::Leave { user }];
            let mut body = json!({"uid": user});
            let others = members
                .iter()
                .filter(|member| member.is_present() && member.user != user);
            let is_last_owner = sight.member.role == Role::Owner
                && !others.clone().any(|member| member.role == Role::Owner);
            if is_last_owner && others.clone().next().is_some() {
                let heir = heir(members)
                    .filter(|heir| *heir != user)
                    .ok_or(Refusal::LastOwner)?;
                present(members, heir)?;
                changes.push(Change::Role {
                    user: heir,
                    role: Role::Owner,
                });
                if let Some(fields) = body.as_object_mut() {
                    fields.insert("owner".into(), json!(heir));
                }
            }
            Ok(Some(Proposal {
                kind: EntryKind::Left,
                body,
                changes,
            }))
        })
        .await
    }

    /// Gives a member another role.
    ///
    /// # Errors
    /// Why not.
    pub async fn set_role(
        &self,
        request: Request,
        id: ConversationId,
        user: UserId,
        role: Role,
    ) -> Result<Placed, Refusal> {
        self.change(&request, id, |sight, members, _| {
            let theirs = present(members, user)?;
            permit(id, sight, Action::ChangeRole(theirs.role, role))?;
            let owners = members
                .iter()
                .filter(|member| member.is_present() && member.role == Role::Owner)
                .count();
            if theirs.role == role {
                return Ok(None);
            }
            if theirs.role == Role::Owner && role != Role::Owner && owners == 1 {
                return Err(Refusal::LastOwner);
            }
            let body = json!({"uid": user, "role": role});
            Ok(Some(Proposal {
                kind: EntryKind::Role,
                body,
                changes: vec![Change::Role { user, role }],
            }))
        })
        .await
    }

    /// Changes settings.
    ///
    /// # Errors
    /// Why not.
    pub async fn change_settings(
        &self,
        request: Request,
        id: ConversationId,
        change: SettingsChange,
    ) -> Result<Placed, Refusal> {
        self.change(&request, id, |sight, _, settings| {
            permit(id, sight, Action::Settings)?;
            if change.retention_days.is_some() || change.retention_messages.is_some() {
                permit(id, sight, Action::Retention)?;
            }
            let mut settings = settings.clone();
            let mut body = serde_json::Map::new();
            if let Some(title) = &change.title {
                settings.title.clone_from(title);
                body.insert("title".into(), json!(title));
            }
            if let Some(description) = &change.description {
                settings.description.clone_from(description);
                body.insert("description".into(), json!(description));
            }
            if let Some(history) = change.history {
                settings.history = history;
                body.insert("history".into(), json!(history));
            }
            if let Some(ttl_s) = change.ttl_s {
                settings.ttl_s = ttl_s;
                body.insert("ttl_s".into(), json!(ttl_s));
            }
            if let Some(days) = change.retention_days {
                settings.retention_days = days;
                body.insert("retention_days".into(), json!(days));
            }
            if let Some(messages) = change.retention_messages {
                settings.retention_messages = messages;
                body.insert("retention_messages".into(), json!(messages));
            }
            if body.is_empty() {
                return Err(Refusal::format("nothing to change"));
            }
            check_settings(&settings)?;
            let changes = vec![Change::Settings(settings)];
            Ok(Some(Proposal {
                kind: EntryKind::Settings,
                body: body.into(),
                changes,
            }))
        })
        .await
    }

    /// Judges a change on the members of the moment and appends it, if there is something to change; judges again when
    /// they moved meanwhile (another node, or a first message). A retry of a request that was stored finds its place
    /// whatever the members are now.
    pub(super) async fn change(
        &self,
        request: &Request,
        id: ConversationId,
        propose: impl Fn(&Sight, &[Member], &Settings) -> Result<Option<Proposal>, Refusal>,
    ) -> Result<Placed, Refusal> {
        const TRIES: usize = 8;
        let (live, _) = self.seen(request.actor.user, id).await?;
        let _turn = live.turn_to_change().await;
        for _ in 0..TRIES {
            let (live, sight) = self.seen(request.actor.user, id).await?;
            if let Some(place) = self.done_before(request, id).await? {
                return Ok(place);
            }
            if !sight.member.is_present() {
                return Err(super::UNSEEN); // who is in now is not for those who left
            }
            let members: Vec<Member> = live
                .members()
                .into_iter()
                .map(|(member, _)| member)
                .collect();
            let settings = live
                .conversation()
                .map(|conversation| conversation.settings)
                .unwrap_or_default();
            let Some(proposal) = propose(&sight, &members, &settings)? else {
                return Ok(Placed {
                    conversation: id,
                    seq: sight.head,
                    ts_ms: 0,
                    duplicate: false,
                });
            };
            let draft = draft(request, id, Basis::Version(sight.version), proposal);
            let outcome = self.append_change(&draft).await?;
            match outcome.and_then(|outcome| placed(&draft, outcome)) {
                Some(result) => {
                    self.follow_own(&draft, outcome);
                    return result;
                }
                None => live.invalidate(),
            }
        }
        Err(Refusal::BUSY)
    }

    /// Where a request to change this conversation was stored before, whatever it would be answered today.
    ///
    /// # Errors
    /// [`Refusal::IdempotencyConflict`] if its id was used for something else.
    pub async fn done_before(
        &self,
        request: &Request,
        id: ConversationId,
    ) -> Result<Option<Placed>, Refusal> {
        let place = self
            .store
            .place_of(id, request.actor.user, &request.id)
            .await?;
        let Some(place) = place else {
            return Ok(None);
        };
        if place.digest != request.digest {
            return Err(Refusal::IdempotencyConflict);
        }
        Ok(Some(Placed {
            conversation: id,
            seq: place.seq,
            ts_ms: place.ts_ms,
            duplicate: true,
        }))
    }

    async fn append_change(&self, draft: &Draft) -> Result<Option<Outcome>, Refusal> {
        match self.store.append(vec![draft.clone()]).await {
            Ok(mut outcomes) => Ok(outcomes.pop()),
            Err(StoreError::TooLarge { .. }) => {
                Err(Refusal::Limit("more members at once than one entry holds"))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn check_group_size(&self, members: usize) -> Result<(), Refusal> {
        if members > usize::try_from(self.config.group_members_max).unwrap_or(usize::MAX) {
            return Err(Refusal::Limit("too many members"));
        }
        Ok(())
    }

    async fn check_joinable(&self, users: impl Iterator<Item = &UserId>) -> Result<(), Refusal> {
        for user in users {
            if !self.names.exists(*user).await? {
                return Err(Refusal::NotFound(Cow::Borrowed("no such user")));
            }
            self.check_conversations(*user).await?;
        }
        Ok(())
    }

    /// Has this user room for one more conversation? Those that the user has left, and direct ones that others began, do
    /// not count.
    pub(super) async fn check_conversations(&self, user: UserId) -> Result<(), Refusal> {
        let limit = u64::from(self.config.conversations_per_user_max);
        if self.store.conversation_count(user).await? >= limit {
            return Err(Refusal::Limit("too many conversations"));
        }
        Ok(())
    }
}

fn draft(
    request: &Request,
    conversation: ConversationId,
    basis: Basis,
    proposal: Proposal,
) -> Draft {
    let body = proposal.body.to_string();
    Draft {
        conversation,
        basis,
        from: request.actor.user,
        peer: None,
        device: request.actor.device,
        mid: request.id.clone(),
        digest: request.digest,
        ts_ms: crate::clock::now_ms(),
        kind: proposal.kind,
        format: BodyFormat::Json,
        opaque: false,
        body: Bytes::from(body),
        target: None,
        thread: None,
        expires_ms: None,
        mentions: Mentioned::default(),
        act: None,
        exchange: None,
        changes: proposal.changes,
    }
}

pub(super) fn permit(id: ConversationId, sight: &Sight, action: Action) -> Result<(), Refusal> {
    if allows(id.kind(), &sight.member, action) {
        return Ok(());
    }
    Err(Refusal::Forbidden("your role does not allow this"))
}

fn present(members: &[Member], user: UserId) -> Result<&Member, Refusal> {
    let found = members
        .iter()
        .find(|member| member.user == user && member.is_present());
    found.ok_or(Refusal::NotFound(Cow::Borrowed("no such member")))
}

fn history_from(policy: HistoryPolicy, at: Seq) -> Option<Seq> {
    match policy {
        HistoryPolicy::All => Some(Seq::new(1)),
        HistoryPolicy::Joined => None,
        HistoryPolicy::Last(count) => {
            Some(Seq::new(at.get().saturating_sub(u64::from(count)).max(1)))
        }
    }
}

fn check_settings(settings: &Settings) -> Result<(), Refusal> {
    if settings.title.len() > TITLE_MAX {
        return Err(Refusal::format(format!(
            "the title is longer than {TITLE_MAX} bytes"
        )));
    }
    if settings.description.len() > DESCRIPTION_MAX {
        return Err(Refusal::format(format!(
            "the description is longer than {DESCRIPTION_MAX} bytes"
        )));
    }
    Ok(())
}
