//! Users and tokens in two lists; everything else is refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use proto::ids::*;

use crate::domain::conversation::Conversation;
use crate::domain::device::*;
use crate::domain::entry::*;
use crate::domain::member::*;
use crate::domain::user::*;
use crate::store::*;

#[derive(Default)]
pub(super) struct Users {
    users: Mutex<Vec<User>>,
    tokens: Mutex<Vec<Token>>,
    pub(super) down: AtomicBool,
}

impl Users {
    fn users(&self) -> MutexGuard<'_, Vec<User>> {
        self.users.lock().unwrap()
    }

    fn answers(&self) -> Result<(), StoreError> {
        if self.down.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("down".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl ChatStore for Users {
    async fn append(&self, _: Vec<Draft>) -> Result<Vec<Outcome>, StoreError> {
        unimplemented!()
    }
    async fn page(&self, _: ConversationId, _: PageRange) -> Result<Vec<Entry>, StoreError> {
        unimplemented!()
    }
    async fn conversations(
        &self,
        _: &[ConversationId],
    ) -> Result<Vec<Option<Conversation>>, StoreError> {
        unimplemented!()
    }
    async fn members(
        &self,
        _: ConversationId,
        _: Option<UserId>,
        _: usize,
    ) -> Result<Vec<(Member, Marks)>, StoreError> {
        unimplemented!()
    }
    async fn conversations_of(
        &self,
        _: UserId,
        _: Option<ConversationId>,
        _: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        unimplemented!()
    }
    async fn count_up_to(
        &self,
        _: ConversationId,
        _: UserId,
        _: Seq,
    ) -> Result<Counts, StoreError> {
        unimplemented!()
    }
    async fn last_own(
        &self,
        _: ConversationId,
        _: UserId,
        _: Seq,
    ) -> Result<Option<Seq>, StoreError> {
        unimplemented!()
    }
    async fn advance(&self, _: Vec<Move>, _: Durability) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn cursors(
        &self,
        _: DeviceId,
        _: Option<ConversationId>,
    ) -> Result<Vec<(ConversationId, Seq)>, StoreError> {
        unimplemented!()
    }
    async fn receipts_due(
        &self,
        _: UserId,
        _: u64,
        _: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        unimplemented!()
    }
    async fn device(&self, _: UserId, _: DeviceId) -> Result<Option<Device>, StoreError> {
        unimplemented!()
    }
    async fn devices(&self, _: UserId) -> Result<Vec<Device>, StoreError> {
        unimplemented!()
    }
    async fn put_device(
        &self,
        _: Device,
        _: Option<Vec<Inflight>>,
        _: Durability,
    ) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn take_inflight(&self, _: DeviceId) -> Result<Vec<Inflight>, StoreError> {
        unimplemented!()
    }
    async fn remove_device(&self, _: UserId, _: DeviceId) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn end_exchange(&self, _: DeviceId, _: u16) -> Result<bool, StoreError> {
        unimplemented!()
    }
    async fn create_user(&self, user: User) -> Result<(), StoreError> {
        let mut users = self.users();
        if users.iter().any(|known| known.handle == user.handle) {
            return Err(StoreError::HandleTaken);
        }
        users.push(user);
        Ok(())
    }
    async fn update_user(&self, user: User) -> Result<(), StoreError> {
        let mut users = self.users();
        let row = users.iter_mut().find(|known| known.id == user.id);
        *row.ok_or(StoreError::NotFound)? = user;
        Ok(())
    }
    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        Ok(self.users().iter().find(|user| user.id == id).cloned())
    }
    async fn user_by_handle(&self, handle: &Handle) -> Result<Option<User>, StoreError> {
        self.answers()?;
        let users = self.users();
        let mut present = users.iter().filter(|user| user.removed_ms.is_none());
        Ok(present.find(|user| user.handle == *handle).cloned())
    }
    async fn users(&self, _: Option<UserId>, _: usize) -> Result<Vec<User>, StoreError> {
        Ok(self.users().clone())
    }
    async fn put_token(&self, token: Token) -> Result<(), StoreError> {
        self.tokens.lock().unwrap().push(token);
        Ok(())
    }
    async fn tokens(&self, user: UserId) -> Result<Vec<Token>, StoreError> {
        let mut tokens = self.tokens.lock().unwrap().clone();
        tokens.retain(|token| token.user == user);
        Ok(tokens)
    }
    async fn remove_token(&self, user: UserId, id: &str) -> Result<bool, StoreError> {
        let mut tokens = self.tokens.lock().unwrap();
        let before = tokens.len();
        tokens.retain(|token| token.user != user || token.id != id);
        Ok(tokens.len() < before)
    }
    fn feed(&self) -> tokio::sync::mpsc::Receiver<Committed> {
        unimplemented!()
    }
    fn health(&self) -> Health {
        unimplemented!()
    }
    async fn flush(&self) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn maintain(&self, _: u64) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn close(&self) -> Result<(), StoreError> {
        unimplemented!()
    }

    async fn token(&self, hash: [u8; 32]) -> Result<Option<Token>, StoreError> {
        let tokens = self.tokens.lock().unwrap();
        Ok(tokens.iter().find(|token| token.hash == hash).cloned())
    }
}
