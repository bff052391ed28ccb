//! Who may see what of whom: the one place where that is judged.

use proto::ids::UserId;
use proto::topics::Target;

use super::{Actor, Refusal, Service};
use crate::domain::contact::Contact;
use crate::domain::profile::{Audience, Privacy};
use crate::presence::Sight;
use crate::store::StoreError;

impl Service {
    /// The user whose presence a target names; `None`: no user, or nothing that `viewer` may see of him. The two cannot be
    /// told apart.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn watchable(
        &self,
        viewer: Actor,
        target: &Target,
    ) -> Result<Option<UserId>, StoreError> {
        let user = match self.user_of(viewer, target).await {
            Ok(user) => user,
            Err(Refusal::Store(error)) => return Err(error),
            Err(_) => return Ok(None),
        };
        let sight = self.may_see_presence(viewer.user, user).await?;
        Ok((sight != Sight::Nothing).then_some(user))
    }

    /// What `viewer` may see of the presence of `user`.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn may_see_presence(
        &self,
        viewer: UserId,
        user: UserId,
    ) -> Result<Sight, StoreError> {
        if !self.names.exists(user).await? {
            return Ok(Sight::Nothing);
        }
        if viewer == user {
            return Ok(Sight::Own);
        }
        let Privacy {
            presence,
            last_seen,
        } = self.store.profile(user).await?.privacy;
        let contact = self.store.contact(user, viewer).await?;
        if !includes(&presence, &contact) {
            return Ok(Sight::Nothing);
        }
        let tells_when = includes(&last_seen, &contact);
        Ok(if contact.is_blocked() {
            Sight::Offline(contact.blocked_ms.filter(|_| tells_when))
        } else if tells_when {
            Sight::LastSeen
        } else {
            Sight::State
        })
    }

    /// The own privacy.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn privacy(&self, actor: Actor) -> Result<Privacy, Refusal> {
        Ok(self.store.profile(actor.user).await?.privacy)
    }

    /// Changes the own privacy: what is given; durable when it returns.
    ///
    /// # Errors
    /// [`Refusal::Limit`] for too many exceptions.
    pub(crate) async fn set_privacy(
        &self,
        actor: Actor,
        presence: Option<Audience>,
        last_seen: Option<Audience>,
    ) -> Result<Privacy, Refusal> {
        let limit = usize::try_from(self.config.privacy_except_max).unwrap_or(usize::MAX);
        let audiences = presence.iter().chain(&last_seen);
        if audiences
            .into_iter()
            .any(|audience| audience.except.len() > limit)
        {
            return Err(Refusal::Limit("too many exceptions"));
        }
        loop {
            let before = self.store.profile(actor.user).await?;
            let mut after = before.clone();
            let privacy = &mut after.privacy;
            if let Some(presence) = &presence {
                privacy.presence.clone_from(presence);
            }
            if let Some(last_seen) = &last_seen {
                privacy.last_seen.clone_from(last_seen);
            }
            let privacy = privacy.clone();
            let replaced = self.store.replace_profile(actor.user, before, after);
            if replaced.await? {
                return Ok(privacy);
            }
        }
    }
}

/// May this contact, or stranger, see what is for this audience?
fn includes(audience: &Audience, viewer: &Contact) -> bool {
    let included = audience.includes(viewer.other);
    included.unwrap_or_else(|| viewer.is_contact())
}
