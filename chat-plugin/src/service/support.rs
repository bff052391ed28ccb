//! Support cases: a visitor opens one at a desk, an agent of the desk claims it, hands it on, closes it; the visitor's next
//! word opens it again. The visitor sees an ordinary conversation; every step is an entry.

use proto::ids::{ConversationId, ConversationKind, DeviceId, MessageId, Seq, UserId};
use serde_json::json;
use std::borrow::Cow;

use super::membership::{Proposal, Request, Scene, draft};
use super::send::placed;
use super::settings::{check_settings, texts_of};
use super::{Actor, Placed, Refusal, Service, UNSEEN, new_mid, permit};
use crate::conversations::{Live, Sight};
use crate::domain::conversation::{Conversation, Settings};
use crate::domain::entry::{Basis, Change, EntryKind};
use crate::domain::member::{Member, Role};
use crate::domain::permission::{Action, allows};
use crate::domain::support::{Case, CaseState};

/// Cases in one page of the queue, and cases that are counted for the list of conversations.
const CASES_MAX: usize = 501;

/// A case, as agents see it in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub conversation: ConversationId,
    /// What it is about.
    pub title: String,
    /// Where it stands.
    pub case: Case,
}

/// Those of a desk who answer.
struct Desk {
    agents: Vec<Member>,
}

impl Desk {
    fn of(live: &Live) -> Self {
        let kind = live.id().kind();
        let members = live.members().into_iter().map(|(member, _)| member);
        let answers = |member: &Member| allows(kind, member, Action::Send);
        Self {
            agents: members.filter(answers).collect(),
        }
    }

    fn role(&self, user: UserId) -> Option<Role> {
        let found = self.agents.iter().find(|agent| agent.user == user);
        found.map(|agent| agent.role)
    }

    fn is_head(&self, user: UserId) -> bool {
        self.role(user).is_some_and(|role| role >= Role::Admin)
    }

    /// The queue looks different for all of them.
    fn told(&self, desk: ConversationId) -> impl Iterator<Item = Change> {
        let tell = move |agent: &Member| Change::Tell {
            user: agent.user,
            conversation: desk,
        };
        self.agents.iter().map(tell)
    }
}

impl Service {
    /// Opens a case at a desk. There is one for each user and desk: whoever has one is told which.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there is no such desk; why not otherwise.
    pub async fn open_case(
        &self,
        request: Request,
        desk: ConversationId,
        title: String,
    ) -> Result<ConversationId, Refusal> {
        let visitor = request.actor.user;
        self.rates.joins.take(visitor)?;
        let id = case_of(visitor, desk);
        if self.conversations.load(id).await?.is_some() {
            return Ok(id);
        }
        let live = self.conversations.load(desk).await?.ok_or(NO_DESK)?;
        let of_desk = live.conversation().map(|desk| desk.settings);
        if !of_desk.is_some_and(|settings| settings.desk && !settings.closed) {
            return Err(NO_DESK);
        }
        if self.store.ban(desk, visitor).await?.is_some() {
            return Err(super::bans::BANNED);
        }
        self.check_conversations(visitor).await?;
        let case = Case {
            desk,
            visitor,
            state: CaseState::Queued,
            agent: None,
            since: crate::clock::now_ms(),
        };
        let settings = Settings {
            title,
            case: Some(case),
            ..Settings::default()
        };
        check_settings(ConversationKind::Support, &settings)?;
        self.check_change(&request, id, &texts_of(&settings))
            .await?;
        let agents = Desk::of(&live);
        let members = json!([{"uid": visitor, "role": Role::Member}]);
        let body = json!({"title": settings.title, "members": members, "case_of": desk,
            "state": case.state.name()});
        let joins = Change::Join {
            user: visitor,
            role: Role::Member,
            history_from: Some(Seq::new(1)),
        };
        let changes = [joins, Change::Settings(settings)];
        let proposal = Proposal {
            kind: EntryKind::Created,
            body,
            changes: changes.into_iter().chain(agents.told(desk)).collect(),
        };
        let draft = draft(&request, id, Basis::Create, proposal);
        let outcome = self.append_change(&draft).await?;
        match outcome.and_then(|outcome| placed(&draft, outcome)) {
            // Somebody with the same name opened it at the same time.
            Some(Ok(_) | Err(Refusal::IdempotencyConflict)) => {}
            Some(Err(refusal)) => return Err(refusal),
            None => return Err(Refusal::BUSY),
        }
        self.tell_desk(&agents);
        Ok(id)
    }

    /// Takes a case from the queue. Of two at once the second is too late.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] if somebody else has it; why not otherwise.
    pub async fn claim(&self, request: Request, id: ConversationId) -> Result<Placed, Refusal> {
        let user = request.actor.user;
        let (desk, agents) = self.desk_of(id).await?;
        self.check_agent(&agents, desk, user).await?;
        let placed = self.change_of_scene(&request, id, |scene| {
            let case = case_in(scene)?;
            match (case.state, case.agent) {
                (CaseState::Queued, _) if case.visitor == user => {
                    return Err(Refusal::Forbidden("nobody answers himself"));
                }
                (CaseState::Queued, _) => {}
                (CaseState::Claimed, Some(agent)) if agent == user => return Ok(None),
                (CaseState::Claimed, _) => {
                    return Err(Refusal::Conflict("somebody else has this case"));
                }
                (CaseState::Closed, _) => return Err(Refusal::Conflict("this case is closed")),
            }
            let body = json!({"state": "claimed", "agent": user});
            let to = (CaseState::Claimed, Some(user));
            Ok(Some(moves(scene, case, to, body, &agents)))
        });
        let placed = placed.await?;
        self.release_orphan(id).await?; // who left the desk at this moment has not got it
        self.tell_desk(&agents);
        Ok(placed)
    }

    /// Hands a case on to another agent, or back to the queue: for the one who has it, and for the admins of the desk.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] if it is not claimed; why not otherwise.
    pub async fn hand_on(
        &self,
        request: Request,
        id: ConversationId,
        to: Option<UserId>,
    ) -> Result<Placed, Refusal> {
        let user = request.actor.user;
        let (desk, agents) = self.desk_of(id).await?;
        self.check_agent(&agents, desk, user).await?;
        if to.is_some_and(|to| agents.role(to).is_none()) {
            return Err(Refusal::NotFound(Cow::Borrowed("no such agent")));
        }
        let placed = self.change_of_scene(&request, id, |scene| {
            let case = case_in(scene)?;
            if case.agent != Some(user) && !agents.is_head(user) {
                return Err(Refusal::Forbidden("somebody else has this case"));
            }
            if case.state != CaseState::Claimed {
                return Err(Refusal::Conflict("nobody has this case"));
            }
            if to == Some(case.visitor) {
                return Err(Refusal::Forbidden("nobody answers himself"));
            }
            if to == case.agent {
                return Ok(None);
            }
            let (state, body) = match to {
                Some(to) => (
                    CaseState::Claimed,
                    json!({"state": "transferred", "agent": to, "former": case.agent}),
                ),
                None => (
                    CaseState::Queued,
                    json!({"state": "queued", "former": case.agent}),
                ),
            };
            Ok(Some(moves(scene, case, (state, to), body, &agents)))
        });
        let placed = placed.await?;
        self.release_orphan(id).await?;
        self.tell_desk(&agents);
        Ok(placed)
    }

    /// Closes a case: for the visitor, for the one who has it, and for the admins of the desk.
    ///
    /// # Errors
    /// Why not.
    pub async fn close_case(
        &self,
        request: Request,
        id: ConversationId,
    ) -> Result<Placed, Refusal> {
        let user = request.actor.user;
        let (desk, agents) = self.desk_of(id).await?;
        if case_of(user, desk) != id {
            self.check_agent(&agents, desk, user).await?;
        }
        let placed = self.change_of_scene(&request, id, |scene| {
            let case = case_in(scene)?;
            let may = case.visitor == user || case.agent == Some(user) || agents.is_head(user);
            if case.state == CaseState::Closed {
                return Ok(None);
            }
            if !may {
                return Err(Refusal::Forbidden("somebody else has this case"));
            }
            let body = match case.agent {
                Some(former) => json!({"state": "closed", "former": former}),
                None => json!({"state": "closed"}),
            };
            Ok(Some(moves(
                scene,
                case,
                (CaseState::Closed, None),
                body,
                &agents,
            )))
        });
        let placed = placed.await?;
        self.tell_desk(&agents);
        Ok(placed)
    }

    /// The visitor has something more to say: a case that was closed goes back to the queue, before the message. Not for a
    /// message that was stored already.
    pub(super) async fn reopen_by(
        &self,
        actor: Actor,
        id: ConversationId,
        mid: &MessageId,
    ) -> Result<(), Refusal> {
        if id.kind() != ConversationKind::Support {
            return Ok(());
        }
        let Some(live) = self.conversations.load(id).await? else {
            return Ok(());
        };
        let is_over = |scene: &Scene| {
            let case = scene.settings.case;
            let own = case.filter(|case| case.visitor == actor.user);
            own.filter(|case| case.state == CaseState::Closed)
        };
        let scene = Scene::of(&live, actor.user);
        if scene.as_ref().and_then(is_over).is_none()
            || self.store.place_of(id, actor.user, mid).await?.is_some()
        {
            return Ok(());
        }
        let (desk, agents) = self.desk_of(id).await?;
        if self.store.ban(desk, actor.user).await?.is_some() {
            return Err(super::bans::BANNED);
        }
        let request = Request {
            actor,
            id: new_mid()?,
            digest: [0; 16],
        };
        self.change_of_scene(&request, id, |scene| {
            let Some(case) = is_over(scene) else {
                return Ok(None);
            };
            let body = json!({"state": "queued"});
            Ok(Some(moves(
                scene,
                case,
                (CaseState::Queued, None),
                body,
                &agents,
            )))
        })
        .await?;
        self.tell_desk(&agents);
        Ok(())
    }

    /// What those had who do not answer at the desk any more goes back to the queue. What cannot be done now is done within the
    /// hour ([`Self::release_orphans`]).
    pub(super) async fn release_cases(&self, desk: ConversationId, changes: &[Change]) {
        let may_have_ended = changes.iter().any(|change| {
            matches!(
                change,
                Change::Leave { .. }
                    | Change::Role { .. }
                    | Change::Given { .. }
                    | Change::Want { .. }
            )
        });
        if may_have_ended && let Err(error) = self.release_claimed(desk).await {
            tracing::error!(%desk, %error, "cases could not be put back into the queue");
        }
    }

    async fn release_claimed(&self, desk: ConversationId) -> Result<(), Refusal> {
        let mut after = None;
        loop {
            let page = self.store.cases(desk, CaseState::Claimed, after, CASES_MAX);
            let page = page.await?;
            let Some(last) = page.last().copied() else {
                return Ok(());
            };
            after = Some(last);
            for (_, id) in page {
                Box::pin(self.release_orphan(id)).await?;
            }
        }
    }

    /// Puts cases back into the queue whose agents do not answer at the desk any more, of all desks.
    ///
    /// # Errors
    /// What the store says.
    pub async fn release_orphans(&self) -> Result<(), Refusal> {
        const PAGE: usize = 64;
        let mut after = None;
        loop {
            let page = self.store.desks(after, PAGE).await?;
            let Some(last) = page.last().copied() else {
                return Ok(());
            };
            after = Some(last);
            for desk in page {
                self.release_claimed(desk).await?;
            }
        }
    }

    /// Puts a case back into the queue if its agent does not answer at the desk any more.
    async fn release_orphan(&self, id: ConversationId) -> Result<(), Refusal> {
        let (_, agents) = self.desk_of(id).await?;
        let live = self.conversations.load(id).await?;
        let settings = live
            .and_then(|live| live.conversation())
            .map(|it| it.settings);
        match settings.and_then(|settings| settings.case?.agent) {
            Some(agent) if agents.role(agent).is_none() => self.release(id, agent).await,
            _ => Ok(()),
        }
    }

    /// The part of a removed user in a case: it is closed, or somebody else's turn. Says whether something was left to do.
    pub(super) async fn leave_case(
        &self,
        actor: Actor,
        id: ConversationId,
    ) -> Result<bool, Refusal> {
        let (desk, _) = self.desk_of(id).await?;
        if case_of(actor.user, desk) != id {
            self.release(id, actor.user).await?;
            return Ok(true);
        }
        let case = self.store.conversations(&[id]).await?.pop().flatten();
        let case = case.and_then(|case| case.settings.case);
        if case.is_none_or(|case| case.state == CaseState::Closed) {
            return Ok(false);
        }
        let request = Request {
            actor,
            id: new_mid()?,
            digest: [0; 16],
        };
        self.close_case(request, id).await?;
        Ok(true)
    }

    async fn release(&self, id: ConversationId, user: UserId) -> Result<(), Refusal> {
        let (_, agents) = self.desk_of(id).await?;
        let request = Request {
            actor: Actor {
                user,
                device: DeviceId::new(user, ""),
                from: None,
            },
            id: new_mid()?,
            digest: [0; 16],
        };
        self.change_of_scene(&request, id, |scene| {
            let case = case_in(scene)?;
            if case.agent != Some(user) {
                return Ok(None);
            }
            let body = json!({"state": "queued", "former": user});
            let to = (CaseState::Queued, None);
            Ok(Some(moves(scene, case, to, body, &agents)))
        })
        .await?;
        self.tell_desk(&agents);
        Ok(())
    }

    /// Cases of a desk that stand there, those that have waited longest first, for its agents.
    ///
    /// # Errors
    /// Why not.
    pub async fn queue(
        &self,
        actor: Actor,
        (desk, state): (ConversationId, CaseState),
        after: Option<(u64, ConversationId)>,
        limit: usize,
    ) -> Result<Vec<Listed>, Refusal> {
        let (_, sight) = self.present(actor.user, desk).await?;
        permit(desk, &sight, Action::Send)?;
        let limit = limit.clamp(1, CASES_MAX);
        let found = self.store.cases(desk, state, after, limit).await?;
        let mut listed = Vec::with_capacity(found.len());
        for (_, id) in found {
            let live = self.conversations.load(id).await?;
            let settings = live.and_then(|live| live.conversation());
            let settings = settings.map(|conversation| conversation.settings);
            let Some((title, case)) =
                settings.and_then(|settings| Some((settings.title, settings.case?)))
            else {
                continue;
            };
            listed.push(Listed {
                conversation: id,
                title,
                case,
            });
        }
        Ok(listed)
    }

    /// How many cases wait, as far as this member is shown it.
    pub(super) async fn queued_shown(
        &self,
        desk: &Conversation,
        sight: &Sight,
    ) -> Result<usize, Refusal> {
        if !desk.settings.desk || !allows(desk.id.kind(), &sight.member, Action::Send) {
            return Ok(0);
        }
        let queued = self
            .store
            .cases(desk.id, CaseState::Queued, None, CASES_MAX);
        Ok(queued.await?.len())
    }

    /// May this user make visitors for a desk?
    ///
    /// # Errors
    /// Why not.
    pub async fn check_host(&self, actor: Actor, desk: ConversationId) -> Result<(), Refusal> {
        let (live, sight) = self.present(actor.user, desk).await?;
        permit(desk, &sight, Action::Admit)?;
        let of_desk = live.conversation().map(|desk| desk.settings);
        if !of_desk.is_some_and(|settings| settings.desk) {
            return Err(NO_DESK);
        }
        self.rates.visitors.take(actor.user)
    }

    /// The desk of a case, and who answers there.
    async fn desk_of(&self, id: ConversationId) -> Result<(ConversationId, Desk), Refusal> {
        let live = self.conversations.load(id).await?.ok_or(UNSEEN)?;
        let settings = live.conversation().map(|case| case.settings);
        let case = settings.and_then(|settings| settings.case).ok_or(UNSEEN)?;
        let live = self.conversations.load(case.desk).await?.ok_or(UNSEEN)?;
        Ok((case.desk, Desk::of(&live)))
    }

    /// Whoever is not of the desk does not learn that there is such a case.
    async fn check_agent(
        &self,
        agents: &Desk,
        desk: ConversationId,
        user: UserId,
    ) -> Result<(), Refusal> {
        if agents.role(user).is_some() {
            return Ok(());
        }
        let (_, sight) = self.present(user, desk).await?;
        permit(desk, &sight, Action::Send)
    }

    fn tell_desk(&self, agents: &Desk) {
        for agent in &agents.agents {
            self.delivery.account_changed(agent.user);
        }
    }
}

const NO_DESK: Refusal = Refusal::NotFound(Cow::Borrowed("no such desk"));

/// The one case of a visitor at a desk.
fn case_of(visitor: UserId, desk: ConversationId) -> ConversationId {
    ConversationId::requested(ConversationKind::Support, visitor, desk.as_bytes())
}

fn case_in(scene: &Scene) -> Result<Case, Refusal> {
    scene.settings.case.ok_or(UNSEEN)
}

/// The entry by which a case goes to another state and another agent.
fn moves(
    scene: &Scene,
    case: Case,
    (state, agent): (CaseState, Option<UserId>),
    body: serde_json::Value,
    agents: &Desk,
) -> Proposal {
    let mut changes = Vec::new();
    if let Some(user) = case.agent.filter(|before| agent != Some(*before)) {
        changes.push(Change::Leave { user });
    }
    if let Some(user) = agent {
        changes.push(Change::Join {
            user,
            role: Role::Moderator,
            history_from: Some(Seq::new(1)),
        });
    }
    let now = Case {
        state,
        agent,
        since: crate::clock::now_ms(),
        ..case
    };
    changes.push(Change::Settings(Settings {
        case: Some(now),
        ..scene.settings.clone()
    }));
    changes.extend(agents.told(case.desk));
    Proposal {
        kind: EntryKind::Case,
        body,
        changes,
    }
}
