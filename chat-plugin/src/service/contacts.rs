//! Whom one knows, and whom one has blocked. Those concerned are not told, and cannot find out.

use proto::ids::{ConversationId, UserId};
use proto::topics::Target;

use super::people::check_name;
use super::{Actor, Refusal, Service};
use crate::domain::contact::{Contact, ContactChange, ContactCounts, ContactList, Decided};

/// The id of nobody: under its key is how long the lists are.
const NO_USER: UserId = UserId::from_bytes([0; 16]);
/// People in one page.
const PAGE_MAX: usize = 500;

/// A page of a list of people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContactPage {
    /// In the order of their ids.
    pub list: Vec<Contact>,
    /// There are more behind the last one.
    pub more: bool,
    /// How many were looked at, at most: those of the other list stand between.
    pub looked_at: usize,
}

impl Service {
    /// Whom a request to change a contact means. Who was removed from the server can still be taken off a list, by id.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there is no such user, [`Refusal::Format`] for oneself.
    pub async fn contact_of(
        &self,
        actor: Actor,
        target: &Target,
        change: &ContactChange,
    ) -> Result<UserId, Refusal> {
        let takes_off = matches!(change, ContactChange::Remove | ContactChange::Unblock);
        let other = match target {
            Target::User(user) if takes_off && *user != NO_USER => *user,
            target => self.user_of(actor, target).await?,
        };
        if other == actor.user {
            return Err(Refusal::format("one is no contact of oneself"));
        }
        Ok(other)
    }

    /// Changes what the actor has decided about another user: in effect, durable, and told to the own devices when it returns.
    /// Says what it is now.
    ///
    /// # Errors
    /// [`Refusal::Limit`] if the list is full, [`Refusal::Format`] for a bad name.
    pub async fn change_contact(
        &self,
        actor: Actor,
        other: UserId,
        change: ContactChange,
    ) -> Result<Contact, Refusal> {
        if let ContactChange::Add { called } = &change {
            check_name(called)?;
        }
        let max = ContactCounts {
            contacts: self.config.contacts_per_user_max,
            blocked: self.config.blocked_per_user_max,
        };
        let now_ms = crate::clock::now_ms();
        let decided = self
            .store
            .change_contact(actor.user, other, change, max, now_ms);
        match decided.await? {
            Decided::Changed | Decided::AsItWas => {}
            Decided::Full(ContactList::Contacts) => {
                return Err(Refusal::Limit("too many contacts"));
            }
            Decided::Full(ContactList::Blocked) => {
                return Err(Refusal::Limit("too many users are blocked"));
            }
        }
        let after = self.store.contact(actor.user, other).await?;
        let direct = ConversationId::direct(actor.user, other);
        if let Some(live) = self.conversations.in_memory(direct) {
            live.invalidate();
            live.refreshed(&self.conversations).await?;
        }
        // Also if it was so: this may be the retry of a call that failed here.
        self.delivery.account_changed(actor.user);
        Ok(after)
    }

    /// A page of a list, behind `after`.
    ///
    /// # Errors
    /// What the store says.
    pub async fn contacts(
        &self,
        actor: Actor,
        list: ContactList,
        (after, limit): (Option<UserId>, usize),
    ) -> Result<ContactPage, Refusal> {
        let limit = limit.clamp(1, PAGE_MAX);
        let mut found = self
            .store
            .contacts(actor.user, list, after, limit + 1)
            .await?;
        let more = found.len() > limit;
        found.truncate(limit);
        let counts = self.store.contact_counts(actor.user).await?;
        let others = match list {
            ContactList::Contacts => counts.blocked,
            ContactList::Blocked => counts.contacts,
        };
        let looked_at = found.len() + usize::try_from(others).unwrap_or(usize::MAX);
        Ok(ContactPage {
            list: found,
            more,
            looked_at,
        })
    }
}
