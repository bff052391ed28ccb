//! Calls about the people whom one knows, or does not want to know.

use super::LISTED_PER_TOKEN;
use super::wire::{self, AddContact, AskUser, Contacts, ListPeople};
use crate::domain::contact::{Contact, ContactChange, ContactList};
use crate::plugin::ChatPlugin;
use crate::plugin::peer::Peer;
use crate::service::Refusal;

/// People in one page, unless another number is asked for.
const PAGE: usize = 100;

impl ChatPlugin {
    pub(super) async fn people_add(
        &self,
        peer: &Peer,
        asked: AddContact,
    ) -> Result<wire::Person, Refusal> {
        let AddContact { user, called } = asked;
        let change = ContactChange::Add { called };
        self.change_contact(peer, AskUser { user }, change).await
    }

    /// Changes what the caller has decided about a user.
    pub(super) async fn change_contact(
        &self,
        peer: &Peer,
        AskUser { user }: AskUser,
        change: ContactChange,
    ) -> Result<wire::Person, Refusal> {
        let other = self
            .service
            .contact_of(peer.actor, &user.0, &change)
            .await?;
        if change == ContactChange::Block {
            self.presence.is_seen(peer.actor.user).await?; // for the last time
        }
        let contact = self.service.change_contact(peer.actor, other, change);
        let contact = contact.await?;
        // Also if it was so: this may be the retry of a call that failed here.
        let judged = self.judge_watchers(peer.actor.user, Some(other)).await?;
        Self::charge(peer, judged);
        self.contact(contact).await
    }

    pub(super) async fn list_people(
        &self,
        peer: &Peer,
        list: ContactList,
        asked: ListPeople,
    ) -> Result<Contacts, Refusal> {
        let limit = asked.limit.unwrap_or(PAGE);
        let page = self
            .service
            .contacts(peer.actor, list, (asked.after, limit));
        let page = page.await?;
        Self::charge(peer, page.looked_at / LISTED_PER_TOKEN);
        let mut contacts = Vec::with_capacity(page.list.len());
        for contact in page.list {
            contacts.push(self.contact(contact).await?);
        }
        let more = page.more;
        Ok(Contacts { contacts, more })
    }

    pub(super) async fn contact(&self, contact: Contact) -> Result<wire::Person, Refusal> {
        Ok(wire::Person {
            user: self.named(contact.other).await?,
            contact: contact.is_contact(),
            blocked: contact.is_blocked(),
            called: contact.called,
        })
    }
}
