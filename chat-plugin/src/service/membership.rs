//! Groups: making them, and who is in them. Every change is an entry of the log.

use bytes::Bytes;
use proto::ids::{ConversationId, ConversationKind, MessageId, Seq, UserId};
use serde_json::json;
use std::borrow::Cow;

use super::send::placed;
use super::settings::check_settings;
use super::{Actor, Placed, Refusal, Service, UNSEEN, permit};
use crate::conversations::{Live, Sight};
use crate::domain::conversation::{HistoryPolicy, Settings};
use crate::domain::entry::{Basis, BodyFormat, Change, Draft, EntryKind, Mentioned, Outcome};
use crate::domain::member::{Member, Role};
use crate::domain::permission::Action;
use crate::store::StoreError;

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

/// A change before it has been judged against the members of the moment.
pub(super) struct Proposal {
    pub(super) kind: EntryKind,
    pub(super) body: serde_json::Value,
    pub(super) changes: Vec<Change>,
}

/// What a change is judged on.
pub(super) struct Scene {
    /// The conversation as the one who asks may see it, if at all.
    pub(super) own: Option<Sight>,
    /// Present and former.
    pub(super) members: Vec<Member>,
    pub(super) settings: Settings,
    pub(super) head: Seq,
    version: u32,
}

impl Scene {
    /// As it is now, in this order: what moved meanwhile is newer than the version.
    pub(super) fn of(live: &Live, user: UserId) -> Option<Self> {
        let conversation = live.conversation()?;
        let members = live.members();
        Some(Self {
            own: live.sight(user),
            members: members.into_iter().map(|(member, _)| member).collect(),
            settings: conversation.settings,
            head: conversation.head,
            version: conversation.version,
        })
    }
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
        self.rates.invitations.take(owner)?;
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

    /// Adds members. Those who are members already are left as they are. What they may see of the past is as the settings
    /// say, or as whoever may change these says here.
    ///
    /// # Errors
    /// Why not.
    pub async fn add_members(
        &self,
        request: Request,
        id: ConversationId,
        users: Vec<(UserId, Role)>,
        history: Option<HistoryPolicy>,
    ) -> Result<Placed, Refusal> {
        if users.is_empty() {
            return Err(Refusal::format("nobody to add"));
        }
        self.rates.invitations.take(request.actor.user)?;
        self.check_joinable(users.iter().map(|(user, _)| user))
            .await?;
        self.change(&request, id, |sight, members, settings| {
            for (_, role) in &users {
                permit(id, sight, Action::Add(*role))?;
            }
            let history = history.unwrap_or(settings.history);
            if history != settings.history {
                permit(id, sight, Action::Settings)?;
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
                history_from: history_from(history, at),
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

    /// Judges a change by a member on the members of the moment and appends it, if there is something to change.
    pub(super) async fn change(
        &self,
        request: &Request,
        id: ConversationId,
        propose: impl Fn(&Sight, &[Member], &Settings) -> Result<Option<Proposal>, Refusal>,
    ) -> Result<Placed, Refusal> {
        self.seen(request.actor.user, id).await?; // a stranger takes no turn
        self.change_of_scene(request, id, |scene| {
            let own = scene.own.as_ref();
            // Who is in now is not for those who left.
            let sight = own.filter(|own| own.member.is_present());
            propose(sight.ok_or(UNSEEN)?, &scene.members, &scene.settings)
        })
        .await
    }

    /// Judges a change and appends it; judges again when the members moved meanwhile (another node, or a first message). A
    /// retry of a request that was stored finds its place whatever the members are now.
    pub(super) async fn change_of_scene(
        &self,
        request: &Request,
        id: ConversationId,
        propose: impl Fn(&Scene) -> Result<Option<Proposal>, Refusal>,
    ) -> Result<Placed, Refusal> {
        const TRIES: usize = 8;
        let live = self.conversations.load(id).await?.ok_or(UNSEEN)?;
        let _turn = live.turn_to_change().await;
        for _ in 0..TRIES {
            let live = self.conversations.load(id).await?.ok_or(UNSEEN)?;
            let scene = Scene::of(&live, request.actor.user).ok_or(UNSEEN)?;
            if let Some(place) = self.done_before(request, id).await? {
                return Ok(place);
            }
            let Some(proposal) = propose(&scene)? else {
                return Ok(Placed {
                    conversation: id,
                    seq: scene.head,
                    ts_ms: 0,
                    duplicate: false,
                });
            };
            let draft = draft(request, id, Basis::Version(scene.version), proposal);
            let outcome = self.append_change(&draft).await?;
            match outcome.and_then(|outcome| placed(&draft, outcome)) {
                Some(result) => {
                    self.follow_own(&draft, outcome);
                    if result.is_ok() && scene.settings.desk {
                        self.release_cases(id, &draft.changes).await?;
                    }
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

    pub(super) async fn append_change(&self, draft: &Draft) -> Result<Option<Outcome>, Refusal> {
        match self.store.append(vec![draft.clone()]).await {
            Ok(mut outcomes) => Ok(outcomes.pop()),
            Err(StoreError::TooLarge { .. }) => {
                Err(Refusal::Limit("more members at once than one entry holds"))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn check_group_size(&self, members: usize) -> Result<(), Refusal> {
        if members > usize::try_from(self.config.group_members_max).unwrap_or(usize::MAX) {
            return Err(Refusal::Limit("too many members"));
        }
        Ok(())
    }

    pub(super) async fn check_joinable(
        &self,
        users: impl Iterator<Item = &UserId>,
    ) -> Result<(), Refusal> {
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

pub(super) fn draft(
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
        scheduled: None,
        was_held: false,
        act: None,
        slow_ms: 0,
        exchange: None,
        changes: proposal.changes,
    }
}

pub(super) fn present(members: &[Member], user: UserId) -> Result<&Member, Refusal> {
    let found = members
        .iter()
        .find(|member| member.user == user && member.is_present());
    found.ok_or(Refusal::NotFound(Cow::Borrowed("no such member")))
}

pub(super) fn history_from(policy: HistoryPolicy, at: Seq) -> Option<Seq> {
    match policy {
        HistoryPolicy::All => Some(Seq::new(1)),
        HistoryPolicy::Joined => None,
        HistoryPolicy::Last(count) => {
            Some(Seq::new(at.get().saturating_sub(u64::from(count)).max(1)))
        }
    }
}
