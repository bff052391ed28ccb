//! temp
use crate::domain::user::User;
use proto::ids::UserId;
pub struct Accounts;
pub enum AuthError {
    BadCredentials,
    Busy,
    Unavailable,
}
pub enum UserEvent {
    PasswordChanged(UserId),
    Removed(UserId),
    TokenRevoked(UserId),
}
impl Accounts {
    pub async fn authenticate(&self, _: &str, _: &[u8]) -> Result<User, AuthError> {
        Err(AuthError::Busy)
    }
    pub fn events(&self) -> tokio::sync::mpsc::Receiver<UserEvent> {
        tokio::sync::mpsc::channel(1).1
    }
}
