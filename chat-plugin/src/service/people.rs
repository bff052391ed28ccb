//! People: who is meant by a name, and the own profile.

use proto::ids::{ConversationId, UserId};
use proto::topics::Target;
use std::borrow::Cow;

use super::{Actor, Refusal, Service};
use crate::accounts::{AccountError, Accounts};
use crate::domain::user::User;

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
        Ok(user)
    }
}

/// A name that can be shown on one line.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    if name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(Refusal::format(format!(
            "a name has at most {NAME_MAX} bytes and no control characters"
        )));
    }
    Ok(())
}
