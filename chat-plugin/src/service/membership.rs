//! Groups, channels and broadcast lists: making them, and who is in them. Every change is an entry of the log, but that one
//! of the many comes or goes.

use bytes::Bytes;
use proto::ids::{ConversationId, ConversationKind, MessageId, Seq, UserId};
use serde_json::json;
use std::borrow::Cow;

use super::send::placed;
use super::settings::{check_settings, texts_of};
use super::{Actor, Placed, Refusal, Service, UNSEEN, permit};
use crate::conversations::{Live, Sight};
use crate::domain::conversation::{HistoryPolicy, Settings};
use crate::domain::entry::{Basis, BodyFormat, Change, Draft, EntryKind, Mentioned, Outcome};
use crate::domain::member::{Member, Role};
use crate::domain::permission::Action;
use crate::domain::support::is_visitor;
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
    /// The conversation of this kind that this request makes, or made.
    pub fn makes(&self, kind: ConversationKind) -> ConversationId {
        let id = self.id.as_str().as_bytes();
        ConversationId::requested(kind, self.actor.user, id)
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
    /// Present and former; of those who are one of many, only whom the change is about.
    pub(super) members: Vec<Member>,
    /// How many there are who are one of many.
    pub(super) readers: u64,
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
            readers: 0,
            settings: conversation.settings,
            head: conversation.head,
            version: conversation.version,
        })
    }
}

impl Service {
    /// Makes a group, channel or broadcast list with its owner and first members. The same request makes it once.
    ///
    /// # Errors
    /// Why not.
    pub async fn create(
        &self,
        request: Request,
        kind: ConversationKind,
        settings: Settings,
        members: Vec<(UserId, Role)>,
    ) -> Result<Placed, Refusal> {
        let owner = request.actor.user;
        check_settings(kind, &settings)?;
        let members: Vec<(UserId, Role)> = members
            .into_iter()
            .filter(|(user, _)| *user != owner)
            .collect();
        let roles = members.iter().map(|(_, role)| *role);
        self.check_size(kind, (1, 0), roles)?;
        if members.iter().any(|(_, role)| *role == Role::Owner) {
            return Err(Refusal::format("it is made with one owner: its maker"));
        }
        if kind == ConversationKind::Broadcast
            && members.iter().any(|(_, role)| *role != Role::Reader)
        {
            return Err(Refusal::format("to whom a broadcast list goes is a reader"));
        }
        self.rates.invitations.take(owner)?;
        self.check_conversations(owner).await?;
        self.check_joinable(kind, members.iter().map(|(user, _)| user))
            .await?;
        let all: Vec<(UserId, Role)> = std::iter::once((owner, Role::Owner))
            .chain(members)
            .collect();
        let conversation = request.makes(kind);
        self.check_change(&request, conversation, &texts_of(&settings))
            .await?;
        let listed = listed(kind, &all);
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
        self.check_person(other).await?;
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
        self.check_joinable(id.kind(), users.iter().map(|(user, _)| user))
            .await?;
        let concerned: Vec<UserId> = users.iter().map(|(user, _)| *user).collect();
        self.change_about(&request, id, &concerned, |sight, scene| {
            let (members, settings) = (&scene.members, &scene.settings);
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
            let roles = coming.iter().map(|(_, role)| *role);
            self.check_size(id.kind(), scene.sizes(id), roles)?;
            let at = sight.head.next();
            let joins = coming.iter().map(|(user, role)| Change::Join {
                user: *user,
                role: *role,
                history_from: history_from(history, at),
            });
            let listed = listed(id.kind(), &coming);
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
        self.change_about(&request, id, &[user], |sight, scene| {
            let theirs = present(&scene.members, user)?;
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

    /// Leaves. The last owner hands over to `heir`, or is refused. Where nobody is left it is closed, and not found any more.
    ///
    /// # Errors
    /// Why not.
    pub async fn leave(
        &self,
        request: Request,
        id: ConversationId,
        heir: Option<UserId>,
    ) -> Result<Placed, Refusal> {
        if id.kind() == ConversationKind::Broadcast && heir.is_some() {
            self.present(request.actor.user, id).await?;
            return Err(Refusal::Forbidden("a broadcast list is its owner's alone"));
        }
        let is_many = |scene: &Scene| scene.readers > 0 && id.kind() == ConversationKind::Channel;
        let concerned: Vec<UserId> = heir.into_iter().collect();
        self.leave_to(request, id, &concerned, |scene| (heir, is_many(scene)))
            .await
    }

    /// Leaves; `heir` says to whom the last owner hands over, and whether he has to though nobody else is more than a reader.
    pub(super) async fn leave_to(
        &self,
        request: Request,
        id: ConversationId,
        concerned: &[UserId],
        heir: impl Fn(&Scene) -> (Option<UserId>, bool),
    ) -> Result<Placed, Refusal> {
        let user = request.actor.user;
        self.change_about(&request, id, concerned, |sight, scene| {
            let members = &scene.members;
            permit(id, sight, Action::Leave)?;
            let mut changes = vec![Change::Leave { user }];
            let mut body = json!({"uid": user});
            let others = members
                .iter()
                .filter(|member| member.is_present() && member.user != user);
            let is_last_owner = sight.member.role == Role::Owner
                && !others.clone().any(|member| member.role == Role::Owner);
            let (heir, has_many) = heir(scene);
            if is_last_owner && (has_many || others.clone().next().is_some()) {
                let heir = heir
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
            } else if is_last_owner && id.kind() != ConversationKind::Broadcast {
                // Whoever reads it still, or comes in at this moment, would find nobody who can do anything about it.
                changes.push(Change::Settings(Settings {
                    closed: true,
                    public: false,
                    ..scene.settings.clone()
                }));
                if let Some(fields) = body.as_object_mut() {
                    fields.insert("closed".into(), json!(true));
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
        self.change_about(request, id, &[], |sight, scene| {
            propose(sight, &scene.members, &scene.settings)
        })
        .await
    }

    /// The same of a change that is about these users, of whom some may be one of many.
    pub(super) async fn change_about(
        &self,
        request: &Request,
        id: ConversationId,
        users: &[UserId],
        propose: impl Fn(&Sight, &Scene) -> Result<Option<Proposal>, Refusal>,
    ) -> Result<Placed, Refusal> {
        self.seen(request.actor.user, id).await?; // a stranger takes no turn
        self.change_of(request, id, users, |scene| {
            let own = scene.own.as_ref();
            // Who is in now is not for those who left.
            let sight = own.filter(|own| own.member.is_present());
            propose(sight.ok_or(UNSEEN)?, scene)
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
        self.change_of(request, id, &[], propose).await
    }

    /// The same of a change that is about these users.
    pub(super) async fn change_of(
        &self,
        request: &Request,
        id: ConversationId,
        users: &[UserId],
        propose: impl Fn(&Scene) -> Result<Option<Proposal>, Refusal>,
    ) -> Result<Placed, Refusal> {
        const TRIES: usize = 8;
        let live = self.conversations.load(id).await?.ok_or(UNSEEN)?;
        let turn = match id.kind() {
            ConversationKind::Channel => None, // its readers come many at a time, and move no version
            _ => Some(live.turn_to_change().await),
        };
        for _ in 0..TRIES {
            let scene = self.scene(id, request.actor.user, users).await?;
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
                    drop(turn);
                    if result.is_ok() && scene.settings.desk {
                        self.release_cases(id, &draft.changes).await;
                    }
                    return result;
                }
                None => live.invalidate(),
            }
        }
        Err(Refusal::BUSY)
    }

    /// A conversation as one user may see it, with what these are there.
    pub(super) async fn scene(
        &self,
        id: ConversationId,
        user: UserId,
        concerned: &[UserId],
    ) -> Result<Scene, Refusal> {
        let live = self.conversations.load_for(id, user).await?;
        let live = live.ok_or(UNSEEN)?;
        let mut scene = Scene::of(&live, user).ok_or(UNSEEN)?;
        if Role::Reader.is_one_of_many(id.kind()) {
            scene.readers = self.store.reader_count(id).await?;
            let found = self.store.readers_among(id, concerned.to_vec()).await?;
            let readers = found.into_iter().map(|(member, _)| member);
            scene.members.extend(readers);
        }
        Ok(scene)
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

    /// Have members with these roles room, where there are so many, and so many who are one of many?
    pub(super) fn check_size(
        &self,
        kind: ConversationKind,
        (mut members, mut many): (u64, u64),
        coming: impl Iterator<Item = Role>,
    ) -> Result<(), Refusal> {
        for role in coming {
            let is_one_of_many = role.is_one_of_many(kind);
            many += u64::from(is_one_of_many);
            members += u64::from(!is_one_of_many);
        }
        if members > u64::from(self.config.group_members_max) {
            return Err(Refusal::Limit("too many members"));
        }
        let most = match kind {
            ConversationKind::Broadcast => self.config.broadcast_recipients_max,
            _ => self.config.channel_readers_max,
        };
        if many > u64::from(most) {
            return Err(Refusal::Limit("too many readers"));
        }
        Ok(())
    }

    /// Is there room for somebody who becomes one of many, or is that no longer?
    pub(super) fn check_seat(
        &self,
        id: ConversationId,
        scene: &Scene,
        (from, to): (Role, Role),
    ) -> Result<(), Refusal> {
        let kind = id.kind();
        if from.is_one_of_many(kind) == to.is_one_of_many(kind) {
            return Ok(());
        }
        let (members, many) = scene.sizes(id);
        let sizes = if to.is_one_of_many(kind) {
            (0, many)
        } else {
            (members, 0)
        };
        self.check_size(kind, sizes, std::iter::once(to))
    }

    /// Are there these users, and have they room for one more conversation, where they know of it?
    pub(super) async fn check_joinable(
        &self,
        kind: ConversationKind,
        users: impl Iterator<Item = &UserId>,
    ) -> Result<(), Refusal> {
        for user in users {
            self.check_person(*user).await?;
            if kind != ConversationKind::Broadcast {
                self.check_conversations(*user).await?;
            }
        }
        Ok(())
    }

    /// Somebody who can be written to and added: visitors talk to a desk, and to nobody else.
    pub(super) async fn check_person(&self, user: UserId) -> Result<(), Refusal> {
        let handle = self.names.handle(user).await?;
        if !self.names.exists(user).await? || handle.is_some_and(|handle| is_visitor(&handle)) {
            return Err(Refusal::NotFound(Cow::Borrowed("no such user")));
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
    let audit = request.actor.noted_change(conversation, &proposal);
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
        source: None,
        scheduled: None,
        was_held: false,
        act: None,
        slow_ms: 0,
        exchange: None,
        changes: proposal.changes,
        audit,
    }
}

impl Scene {
    /// How many members there are, and how many who are one of many.
    pub(super) fn sizes(&self, id: ConversationId) -> (u64, u64) {
        let present = self.members.iter().filter(|member| member.is_present());
        let members = present.filter(|member| !member.role.is_one_of_many(id.kind()));
        (members.count() as u64, self.readers)
    }
}

/// Members as the log tells of them: not those who are one of many.
fn listed(kind: ConversationKind, members: &[(UserId, Role)]) -> Vec<serde_json::Value> {
    let told = members
        .iter()
        .filter(|(_, role)| !role.is_one_of_many(kind));
    told.map(|(user, role)| json!({"uid": user, "role": role}))
        .collect()
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
