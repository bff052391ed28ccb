//! People: who is meant by a name, and the own profile.

use proto::ids::{ConversationId, Handle, UserId};
use proto::topics::Target;
use std::borrow::Cow;

use super::privacy::includes;
use super::{Actor, Refusal, Service};
use crate::accounts::{AccountError, Accounts};
use crate::domain::contact::Contact;
use crate::domain::profile::{Profile, ProfileChange};
use crate::domain::user::User;
use crate::filter::ContentKind;

/// Longest display name, in bytes.
const NAME_MAX: usize = 256;

impl Service {
    /// The user that a target names: `@handle`, `u.{uid}` or `me`.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there is none.
    pub async fn user_of(&self, actor: Actor, target: &Target) -> Result<UserId, Refusal> {
        let nobody = || Refusal::NotFound(format!("no such user: {target}").into());
        match target {
            Target::Me => Ok(actor.user),
            Target::User(user) => {
                if self.names.exists(*user).await? {
                    Ok(*user)
                } else {
                    Err(nobody())
                }
            }
            Target::Handle(handle) => self.names.user(handle).await?.ok_or_else(nobody),
            Target::Conversation(_) => Err(Refusal::format("a user is wanted, not a conversation")),
        }
    }

    /// The member of a conversation, present or former, that a target names: one who was removed from the server, too, as
    /// the handle is not given to anybody else meanwhile.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there is no such user, or no conversation that the actor can see.
    pub async fn member_of(
        &self,
        actor: Actor,
        conversation: ConversationId,
        target: &Target,
    ) -> Result<UserId, Refusal> {
        let (live, _) = self.seen(actor.user, conversation).await?;
        let _held = match target {
            Target::User(user) => self.conversations.keep(&live, *user).await?,
            _ => None,
        };
        match target {
            Target::User(user) if live.sight(*user).is_some() => return Ok(*user),
            Target::Handle(handle) if self.names.user(handle).await?.is_none() => {
                for (member, _) in live.members() {
                    if self.names.handle(member.user).await?.as_ref() == Some(handle) {
                        return Ok(member.user);
                    }
                }
            }
            _ => {}
        }
        self.user_of(actor, target).await
    }

    /// The user whom a target names, for taking back what concerns him: one who was removed from the server, too.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if nobody has the handle.
    pub async fn anybody(
        &self,
        actor: Actor,
        conversation: ConversationId,
        target: &Target,
    ) -> Result<UserId, Refusal> {
        match target {
            Target::User(user) => {
                self.seen(actor.user, conversation).await?;
                Ok(*user)
            }
            target => self.member_of(actor, conversation, target).await,
        }
    }

    /// The own profile.
    ///
    /// # Errors
    /// What the store says.
    pub async fn me(&self, actor: Actor) -> Result<User, Refusal> {
        self.store
            .user(actor.user)
            .await?
            .ok_or(Refusal::NotFound(Cow::Borrowed("no such user")))
    }

    /// What the actor may see of another user, by that user's privacy. Being blocked changes nothing of it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there never was such a user.
    pub async fn person(&self, actor: Actor, target: &Target) -> Result<Person, Refusal> {
        let id = match target {
            Target::User(user) => *user,
            target => self.user_of(actor, target).await?,
        };
        let found = self.store.user(id).await?;
        let user =
            found.ok_or_else(|| Refusal::NotFound(format!("no such user: {target}").into()))?;
        let profile = self.store.profile(id).await?;
        let known_as = self.store.contact(id, actor.user).await?;
        let is_shown = id == actor.user || includes(&profile.privacy.profile, &known_as);
        Ok(Person {
            user,
            profile: Some(profile).filter(|_| is_shown).unwrap_or_default(),
            contact: self.store.contact(actor.user, id).await?,
        })
    }

    /// Changes the own profile: what is given; durable when it returns.
    ///
    /// # Errors
    /// [`Refusal::Format`] for what no profile has.
    pub async fn change_profile(
        &self,
        actor: Actor,
        change: &ProfileChange,
    ) -> Result<(), Refusal> {
        change.check().map_err(Refusal::Format)?;
        self.replace_profile(actor, |profile| change.apply(profile))
            .await?;
        Ok(())
    }

    /// Asks the filter about what others will read of the own profile. What is there already was looked at.
    ///
    /// # Errors
    /// [`Refusal::Content`] if it is not wanted; [`Refusal::Rate`] if nobody could look at it.
    pub async fn check_profile(
        &self,
        actor: Actor,
        name: Option<&str>,
        change: &ProfileChange,
    ) -> Result<(), Refusal> {
        if !self.has_filter() {
            return Ok(());
        }
        let known = self.me(actor).await?.name;
        let before = self.store.profile(actor.user).await?;
        let status = change.status.as_ref();
        let mut texts: Vec<&str> = Vec::new();
        texts.extend(name.filter(|name| *name != known));
        texts.extend(
            status
                .filter(|status| **status != before.status)
                .map(String::as_str),
        );
        let tags = change.tags.iter().flatten();
        texts.extend(
            tags.filter(|tag| !before.tags.contains(tag))
                .map(String::as_str),
        );
        let about = (ContentKind::Profile, None);
        self.check_shown(actor.user, about, &texts).await
    }

    /// Changes what is at rest of the own profile, and tells the own devices.
    pub(super) async fn replace_profile(
        &self,
        actor: Actor,
        change: impl Fn(&mut Profile),
    ) -> Result<Profile, Refusal> {
        loop {
            let before = self.store.profile(actor.user).await?;
            let mut after = before.clone();
            change(&mut after);
            let replaced = self
                .store
                .replace_profile(actor.user, before, after.clone());
            if replaced.await? {
                self.delivery.account_changed(actor.user);
                return Ok(after);
            }
        }
    }

    /// Gives the actor another handle: it names him from now on, and the old one nobody. Durable when it returns.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] if it is somebody's, or rests; [`Refusal::Rate`] after too many changes.
    pub async fn change_handle(
        &self,
        accounts: &Accounts,
        actor: Actor,
        to: Handle,
    ) -> Result<User, Refusal> {
        const MONTH_MS: u64 = 30 * 24 * 3_600 * 1_000;
        let now_ms = crate::clock::now_ms();
        let max = usize::try_from(self.config.handle_changes_per_month).unwrap_or(usize::MAX);
        if max == 0 {
            return Err(Refusal::Forbidden(
                "handles are given by those who run this server",
            ));
        }
        if self.me(actor).await?.handle == to {
            return self.me(actor).await;
        }
        let about = (ContentKind::Handle, None);
        self.check_shown(actor.user, about, &[to.as_str()]).await?;
        // Counted before it is done: who asks many times at once has no more than the others.
        loop {
            let before = self.store.profile(actor.user).await?;
            let mut after = before.clone();
            let lately = &mut after.handle_changes;
            lately.retain(|at| now_ms < at.saturating_add(MONTH_MS));
            if lately.len() >= max {
                let oldest = lately.iter().min().copied().unwrap_or(now_ms);
                return Err(Refusal::Rate {
                    retry_ms: oldest.saturating_add(MONTH_MS).saturating_sub(now_ms),
                });
            }
            lately.push(now_ms);
            if self
                .store
                .replace_profile(actor.user, before, after)
                .await?
            {
                break;
            }
        }
        let refusal = match accounts.change_handle(actor.user, to).await {
            Ok((before, after)) => {
                self.names.changed(&before);
                self.names.changed(&after);
                self.delivery.account_changed(actor.user);
                return Ok(after);
            }
            Err(AccountError::HandleTaken(_)) => Refusal::Forbidden("this handle is taken"),
            Err(AccountError::HandleReserved(_)) => Refusal::Forbidden("this handle is reserved"),
            Err(AccountError::Store(error)) => return Err(error.into()), // it may have been done
            Err(_) => Refusal::NotFound(Cow::Borrowed("no such user")),
        };
        self.replace_profile(actor, |profile| {
            let changes = &mut profile.handle_changes;
            if let Some(own) = changes.iter().position(|at| *at == now_ms) {
                changes.remove(own);
            }
        })
        .await?;
        Err(refusal)
    }

    /// Changes the own display name; durable when it returns.
    ///
    /// # Errors
    /// [`Refusal::Format`] for a name longer than 256 bytes or with control characters.
    pub async fn set_name(
        &self,
        accounts: &Accounts,
        actor: Actor,
        name: String,
    ) -> Result<User, Refusal> {
        check_name(&name)?;
        let user = match accounts.set_name(actor.user, name).await {
            Ok(user) => user,
            Err(AccountError::Store(error)) => return Err(error.into()),
            Err(_) => return Err(Refusal::NotFound(Cow::Borrowed("no such user"))),
        };
        self.names.changed(&user);
        self.delivery.account_changed(user.id);
        Ok(user)
    }
}

/// What one user may see of another.
#[derive(Clone, Debug)]
pub struct Person {
    /// Who it is, removed ones included.
    pub user: User,
    /// What is shown of the profile; nothing, if it is not for the one who asks.
    pub profile: Profile,
    /// What the one who asks has decided about this user.
    pub contact: Contact,
}

/// A name that can be shown on one line.
pub(crate) fn check_name(name: &str) -> Result<(), Refusal> {
    if name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(Refusal::format(format!(
            "a name has at most {NAME_MAX} bytes and no control characters"
        )));
    }
    Ok(())
}
