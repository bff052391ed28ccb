//! How strangers come in: by a code, into what is public, or by asking those who may let them in.

use std::borrow::Cow;

use proto::ids::{ConversationId, ConversationKind, UserId};
use serde_json::json;

use super::bans::BANNED;
use super::inviting::MISS;
use super::membership::{Proposal, Request, Scene, history_from, present};
use super::{Actor, Placed, Refusal, Service, UNSEEN, permit};
use crate::conversations::{Live, Sight};
use crate::domain::audit::AuditLine;
use crate::domain::entry::{Change, EntryKind};
use crate::domain::joining::{Invitation, JoinRequest, Requested};
use crate::domain::member::Role;
use crate::domain::permission::{Action, allows};
use crate::store::AskToJoin;

/// Requests in one page of the list.
const REQUESTS_MAX: usize = 501;
/// Members who are told at once that somebody asks to join; the others see it when they look.
const TOLD_MAX: usize = 64;

/// By what right a stranger comes in.
#[derive(Clone, Debug)]
pub enum Way {
    /// A code, as it was written.
    Code(String),
    /// The conversation is public.
    Open(ConversationId),
}

/// A way in that was looked up.
struct Found {
    conversation: ConversationId,
    by: Option<(Invitation, [u8; 16])>,
}

/// On what terms somebody comes in.
#[derive(Clone, Copy)]
struct Terms {
    role: Role,
    approval: bool,
}

/// What became of a wish to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// A member now, or was one already.
    In(Placed),
    /// Somebody has to approve it.
    Waits(ConversationId),
}

/// What a stranger is shown of a conversation that he may join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glimpse {
    /// Its title.
    pub title: String,
    /// How many members it has.
    pub members: usize,
    /// Somebody has to approve who joins.
    pub approval: bool,
}

impl Found {
    /// On what terms, if this way leads in as things are.
    fn terms(&self, scene: &Scene, now_ms: u64) -> Result<Terms, Refusal> {
        let kind = self.conversation.kind();
        let Some((invitation, _)) = &self.by else {
            let can_be_joined = matches!(kind, ConversationKind::Group | ConversationKind::Channel);
            if !scene.settings.public || !can_be_joined {
                return Err(UNSEEN);
            }
            let role = match kind {
                ConversationKind::Channel => Role::Reader,
                _ => Role::Member,
            };
            let approval = scene.settings.approval;
            return Ok(Terms { role, approval });
        };
        let maker = scene.members.iter().find(|one| one.user == invitation.by);
        let may = |role| maker.is_some_and(|maker| allows(kind, maker, Action::Add(role)));
        if !invitation.is_open(now_ms) || !may(invitation.role) {
            return Err(MISS);
        }
        Ok(Terms {
            role: invitation.role,
            approval: invitation.approval,
        })
    }

    /// Who made the invitation: it is worth what he may now.
    fn maker(&self) -> Vec<UserId> {
        self.by
            .iter()
            .map(|(invitation, _)| invitation.by)
            .collect()
    }

    fn via(&self) -> &'static str {
        if self.by.is_some() { "link" } else { "open" }
    }
}

impl Service {
    /// What a stranger is shown of a conversation that he may join.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] for every way that leads nowhere.
    pub async fn glimpse(&self, actor: Actor, way: &Way) -> Result<Glimpse, Refusal> {
        self.rates.joins.take(actor.user)?;
        let found = self.find(way).await?;
        let live = self.conversations.load(found.conversation).await?;
        let live = live.ok_or(UNSEEN)?;
        let maker = found.maker();
        let scene = self.scene(found.conversation, actor.user, &maker);
        let scene = scene.await?;
        let readers = scene.readers;
        let terms = found.terms(&scene, crate::clock::now_ms())?;
        self.check_ban(found.conversation, actor.user).await?;
        Ok(Glimpse {
            title: scene.settings.title,
            members: live.present().len() + usize::try_from(readers).unwrap_or(usize::MAX),
            approval: terms.approval,
        })
    }

    /// Joins, or asks to. Whoever was a member before comes back with no more than the role that he had.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] for every way that leads nowhere; why not otherwise.
    pub async fn join(&self, request: Request, way: &Way) -> Result<Joined, Refusal> {
        let user = request.actor.user;
        self.rates.joins.take(user)?;
        let found = self.find(way).await?;
        let id = found.conversation;
        if let Some(place) = self.done_before(&request, id).await? {
            return Ok(Joined::In(place));
        }
        let live = self.conversations.load(id).await?.ok_or(UNSEEN)?;
        let maker = found.maker();
        let scene = self.scene(id, user, &maker).await?;
        let is_member = |scene: &Scene| {
            let own = scene.own.as_ref();
            own.is_some_and(|own| own.member.is_present())
        };
        if !is_member(&scene) {
            let terms = found.terms(&scene, crate::clock::now_ms())?;
            check_open(&scene)?;
            self.check_ban(id, user).await?;
            self.check_conversations(user).await?;
            if terms.approval {
                let role = returning(&scene, terms.role);
                self.ask_to_join(&live, user, role, &found).await?;
                return Ok(Joined::Waits(id));
            }
        }
        let placed = self.change_of(&request, id, &maker, |scene| {
            if is_member(scene) {
                return Ok(None);
            }
            let terms = found.terms(scene, crate::clock::now_ms())?;
            check_open(scene)?;
            if terms.approval {
                return Err(Refusal::BUSY); // it came up meanwhile: the next attempt asks
            }
            let role = returning(scene, terms.role);
            self.check_room(id, scene, role)?;
            let invited = found.by.as_ref();
            let mut changes: Vec<_> = invited
                .map(|(_, hash)| Change::Invited { hash: *hash })
                .into_iter()
                .collect();
            changes.push(join(scene, user, role));
            Ok(Some(Proposal {
                kind: EntryKind::Joined,
                body: json!({"uid": user, "role": role, "via": found.via()}),
                changes,
            }))
        });
        placed.await.map(Joined::In)
    }

    /// Lets somebody in who asked for it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if nobody did; why not otherwise.
    pub async fn approve(
        &self,
        request: Request,
        id: ConversationId,
        user: UserId,
    ) -> Result<Placed, Refusal> {
        self.seen(request.actor.user, id).await?; // a stranger takes no turn
        let asked = self.store.join_request(id, user).await?;
        if asked.is_some() {
            self.check_joinable(id.kind(), std::iter::once(&user))
                .await?;
        }
        self.change_of_scene(&request, id, |scene| {
            let sight = scene.own.as_ref().filter(|own| own.member.is_present());
            let sight = sight.ok_or(UNSEEN)?;
            permit(id, sight, Action::Admit)?;
            let asked = asked.as_ref().ok_or(NO_REQUEST)?;
            permit(id, sight, Action::Add(asked.role))?;
            if present(&scene.members, user).is_ok() {
                return Ok(None); // added meanwhile, and has a role
            }
            self.check_room(id, scene, asked.role)?;
            let role = asked.role;
            Ok(Some(Proposal {
                kind: EntryKind::Joined,
                body: json!({"uid": user, "role": role, "via": "request"}),
                changes: vec![Change::Approved { user, role }, join(scene, user, role)],
            }))
        })
        .await
    }

    /// Ends the request of somebody who is not to join. Done again it changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub async fn refuse_request(
        &self,
        actor: Actor,
        id: ConversationId,
        user: UserId,
    ) -> Result<(), Refusal> {
        let (live, sight) = self.present(actor.user, id).await?;
        permit(id, &sight, Action::Admit)?;
        let line = actor.noted("conv.refuse", (id, Some(user)), &json!({}));
        self.drop_request(&live, user, line).await
    }

    /// Takes the own request back. Whether there was one, or a conversation at all, is not told.
    ///
    /// # Errors
    /// What the store says.
    pub async fn withdraw(&self, actor: Actor, id: ConversationId) -> Result<(), Refusal> {
        match self.conversations.load(id).await? {
            Some(live) => self.drop_request(&live, actor.user, None).await,
            None => Ok(()),
        }
    }

    /// Requests to join, in the order of the users, at most `limit` after `after`, for those who may let them in.
    ///
    /// # Errors
    /// Why not.
    pub async fn join_requests(
        &self,
        actor: Actor,
        id: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<JoinRequest>, Refusal> {
        let (_, sight) = self.present(actor.user, id).await?;
        permit(id, &sight, Action::Admit)?;
        let limit = limit.clamp(1, REQUESTS_MAX);
        Ok(self.store.join_requests(id, after, limit).await?)
    }

    /// How many ask to join, as far as this member is shown it.
    pub(super) async fn requests_shown(
        &self,
        id: ConversationId,
        sight: &Sight,
    ) -> Result<usize, Refusal> {
        if !allows(id.kind(), &sight.member, Action::Admit) {
            return Ok(0);
        }
        let limit = usize::try_from(self.config.join_requests_max).unwrap_or(usize::MAX);
        Ok(self.store.join_requests(id, None, limit).await?.len())
    }

    async fn find(&self, way: &Way) -> Result<Found, Refusal> {
        match way {
            Way::Code(code) => {
                let (invitation, hash) = self.invited(code).await?;
                Ok(Found {
                    conversation: invitation.conversation,
                    by: Some((invitation, hash)),
                })
            }
            Way::Open(conversation) => Ok(Found {
                conversation: *conversation,
                by: None,
            }),
        }
    }

    async fn check_ban(&self, id: ConversationId, user: UserId) -> Result<(), Refusal> {
        match self.store.ban(id, user).await? {
            Some(_) => Err(BANNED),
            None => Ok(()),
        }
    }

    fn check_room(&self, id: ConversationId, scene: &Scene, role: Role) -> Result<(), Refusal> {
        self.check_size(id.kind(), scene.sizes(id), std::iter::once(role))
    }

    async fn ask_to_join(
        &self,
        live: &Live,
        user: UserId,
        role: Role,
        found: &Found,
    ) -> Result<(), Refusal> {
        let tell = approvers(live);
        let request = JoinRequest {
            conversation: live.id(),
            user,
            role,
            ts_ms: crate::clock::now_ms(),
        };
        let asked = AskToJoin {
            request,
            code: found.by.as_ref().map(|(_, hash)| *hash),
            limit: usize::try_from(self.config.join_requests_max).unwrap_or(usize::MAX),
            tell: tell.clone(),
        };
        match self.store.ask_to_join(asked).await? {
            Requested::Waits => {
                self.tell_accounts(&tell);
                Ok(())
            }
            Requested::Full => Err(Refusal::Limit("too many requests to join wait here")),
            Requested::Void => Err(MISS),
            Requested::Banned => Err(BANNED),
            Requested::Member => {
                live.invalidate();
                Err(Refusal::BUSY) // added meanwhile: the next attempt finds it
            }
        }
    }

    async fn drop_request(
        &self,
        live: &Live,
        user: UserId,
        line: Option<Box<AuditLine>>,
    ) -> Result<(), Refusal> {
        let tell = approvers(live);
        let dropped = self
            .store
            .drop_join_request(live.id(), user, tell.clone(), line)
            .await?;
        if dropped {
            self.tell_accounts(&tell);
        }
        Ok(())
    }

    fn tell_accounts(&self, users: &[UserId]) {
        for user in users {
            self.delivery.account_changed(*user);
        }
    }
}

const NO_REQUEST: Refusal = Refusal::NotFound(Cow::Borrowed("no such request to join"));

fn check_open(scene: &Scene) -> Result<(), Refusal> {
    if scene.settings.closed {
        return Err(Refusal::Forbidden("this conversation is closed"));
    }
    Ok(())
}

/// Whoever comes back by himself comes back with no more than he had.
fn returning(scene: &Scene, role: Role) -> Role {
    let own = scene.own.as_ref();
    own.map_or(role, |own| own.member.role.min(role))
}

fn join(scene: &Scene, user: UserId, role: Role) -> Change {
    Change::Join {
        user,
        role,
        history_from: history_from(scene.settings.history, scene.head.next()),
    }
}

/// Members who may let others in.
fn approvers(live: &Live) -> Vec<UserId> {
    let kind = live.id().kind();
    let members = live.members().into_iter();
    let may = members.filter(|(member, _)| allows(kind, member, Action::Admit));
    may.map(|(member, _)| member.user).take(TOLD_MAX).collect()
}
