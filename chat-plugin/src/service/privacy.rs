//! Who may see what of whom: the one place where that is judged.

use proto::ids::UserId;
use proto::topics::Target;

use super::{Actor, Refusal, Service};
use crate::delivery::reader::Reader;
use crate::domain::contact::Contact;
use crate::domain::profile::{Audience, Privacy, Shows};
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
            ..
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

    /// What of the marks of this connection's user others are told. Read once for each connection.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn shows(&self, reader: &Reader) -> Result<Shows, StoreError> {
        if let Some(shows) = reader.shows() {
            return Ok(shows);
        }
        let privacy = self.store.profile(reader.user).await?.privacy;
        Ok(reader.learn(privacy.shows()))
    }

    /// Changes the own privacy: what is given; durable when it returns.
    ///
    /// # Errors
    /// [`Refusal::Limit`] for too many exceptions.
    pub(crate) async fn set_privacy(
        &self,
        actor: Actor,
        change: &PrivacyChange,
    ) -> Result<Privacy, Refusal> {
        let limit = usize::try_from(self.config.privacy_except_max).unwrap_or(usize::MAX);
        let audiences = [&change.presence, &change.last_seen, &change.profile];
        if audiences
            .into_iter()
            .flatten()
            .any(|audience| audience.except.len() > limit)
        {
            return Err(Refusal::Limit("too many exceptions"));
        }
        let replaced = self.replace_profile(actor, |profile| change.apply(&mut profile.privacy));
        let privacy = replaced.await?.privacy;
        self.delivery.shows_changed(actor.user, privacy.shows());
        Ok(privacy)
    }
}

/// A change of the own privacy: what is given changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PrivacyChange {
    pub(crate) presence: Option<Audience>,
    pub(crate) last_seen: Option<Audience>,
    pub(crate) profile: Option<Audience>,
    pub(crate) search: Option<bool>,
    pub(crate) delivered: Option<bool>,
    pub(crate) read: Option<bool>,
}

impl PrivacyChange {
    fn apply(&self, privacy: &mut Privacy) {
        for (to, from) in [
            (&mut privacy.presence, &self.presence),
            (&mut privacy.last_seen, &self.last_seen),
            (&mut privacy.profile, &self.profile),
        ] {
            if let Some(from) = from {
                to.clone_from(from);
            }
        }
        privacy.search = self.search.unwrap_or(privacy.search);
        privacy.delivered = self.delivered.unwrap_or(privacy.delivered);
        privacy.read = self.read.unwrap_or(privacy.read);
    }
}

/// May this contact, or stranger, see what is for this audience?
pub(super) fn includes(audience: &Audience, viewer: &Contact) -> bool {
    let included = audience.includes(viewer.other);
    included.unwrap_or_else(|| viewer.is_contact())
}
