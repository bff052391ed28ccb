//! Accounts over the store in memory.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use broker::scram::Credential;
use proto::ids::Handle;

use super::*;
use crate::store::{self, EngineKind, StoreOptions};

struct World {
    store: Arc<dyn ChatStore>,
    accounts: Accounts,
}

impl World {
    fn new(dev: bool) -> Self {
        Self::over(store_in_memory(), dev, false)
    }

    fn over(store: Arc<dyn ChatStore>, dev: bool, scram: bool) -> Self {
        let config = AccountsConfig {
            argon2_memory_kib: 8,
            argon2_passes: 1,
            hashes_at_once: 1,
            tokens_per_user_max: 2,
            scram,
            ..AccountsConfig::default()
        };
        let accounts = Accounts::new(Arc::clone(&store), &config, dev).unwrap();
        Self { store, accounts }
    }

    /// The same users after a restart with another option.
    fn with_scram(self, scram: bool) -> Self {
        Self::over(self.store, false, scram)
    }

    async fn with_alice() -> Self {
        let world = Self::new(false);
        let password: &[u8] = b"secret";
        world
            .accounts
            .add_user(alice(), Some(password))
            .await
            .unwrap();
        world
    }

    async fn user(&self) -> User {
        let found = self.store.user_by_handle(&alice()).await.unwrap();
        found.unwrap()
    }

    async fn login(&self, name: &str, password: &str) -> Result<(), AuthError> {
        let user = self
            .accounts
            .authenticate(home(), name, password.as_bytes())
            .await?;
        assert_eq!(user.handle.as_str(), name);
        Ok(())
    }
}

fn store_in_memory() -> Arc<dyn ChatStore> {
    let options = StoreOptions {
        engine: EngineKind::Memory,
        ..StoreOptions::default()
    };
    store::open(&options).unwrap()
}

fn home() -> IpAddr {
    [192, 0, 2, 1].into()
}

fn bob() -> Handle {
    "bob".parse().unwrap()
}

fn alice() -> Handle {
    "alice".parse().unwrap()
}

const OK: Result<(), AuthError> = Ok(());
const BAD: Result<(), AuthError> = Err(AuthError::BadCredentials);

#[tokio::test]
async fn a_password_lets_its_user_in_and_nobody_else() {
    let world = World::with_alice().await;
    assert_eq!(world.login("alice", "secret").await, OK);
    assert_eq!(world.login("alice", "wrong").await, BAD);
    assert_eq!(world.login("alice", "").await, BAD);
    assert_eq!(world.login("bob", "secret").await, BAD);
    assert_eq!(world.login("Alice", "secret").await, BAD);
    assert_eq!(world.login("a/b", "secret").await, BAD);
    assert_eq!(world.login("alice", &"x".repeat(1_025)).await, BAD);
}

#[tokio::test]
async fn a_new_password_replaces_the_remembered_one_at_once() {
    let world = World::with_alice().await;
    assert_eq!(world.login("alice", "secret").await, OK);
    let mut events = world.accounts.events();
    let changed = world.accounts.set_password(&alice(), b"other").await;
    assert_eq!(changed, Ok(()));
    assert_eq!(world.login("alice", "secret").await, BAD);
    assert_eq!(world.login("alice", "other").await, OK);
    assert_eq!(events.try_recv().unwrap().change, UserChange::Password);
}

#[tokio::test]
async fn a_password_changed_during_its_verification_lets_nobody_in() {
    let world = World::with_alice().await;
    let occupied = world.accounts.hashing.occupy();
    let mut login = Box::pin(world.login("alice", "secret"));
    assert!(futures_util::poll!(&mut login).is_pending());
    let mut user = world.user().await;
    user.password_hash = None;
    world.store.update_user(user).await.unwrap();
    drop(occupied);
    assert_eq!(login.await, BAD);
}

#[tokio::test]
async fn a_remembered_password_needs_no_hash_until_its_time_is_over() {
    let world = World::with_alice().await;
    assert_eq!(world.login("alice", "secret").await, OK);
    tokio::time::pause();
    let login = world.accounts.authenticate(home(), "alice", b"secret");
    assert!(futures_util::poll!(Box::pin(login)).is_ready());
    tokio::time::advance(Duration::from_hours(1)).await;
    let occupied = world.accounts.hashing.occupy();
    let mut login = Box::pin(world.accounts.authenticate(home(), "alice", b"secret"));
    assert!(futures_util::poll!(&mut login).is_pending());
    drop(occupied);
    tokio::time::resume();
    assert!(login.await.is_ok());
}

#[tokio::test]
async fn a_fleet_with_one_password_is_let_in_at_once_and_hashed_once() {
    let world = World::with_alice().await;
    let logins = (0..100).map(|_| world.login("alice", "secret"));
    let results = futures_util::future::join_all(logins).await;
    assert!(results.iter().all(|result| *result == OK), "{results:?}");
    let guesses = (0..100).map(|guess| {
        let accounts = &world.accounts;
        async move {
            let password = format!("guess {guess}");
            accounts
                .authenticate(home(), "alice", password.as_bytes())
                .await
        }
    });
    let results = futures_util::future::join_all(guesses).await;
    let checked = |result: &&Result<User, AuthError>| **result == Err(AuthError::BadCredentials);
    let burst = AccountsConfig::default().login_failures_burst as usize;
    assert_eq!(results.iter().filter(checked).count(), burst);
    let known = world
        .accounts
        .authenticate(home(), "alice", b"secret")
        .await;
    let is_closed = matches!(known, Err(AuthError::Throttled { .. }));
    assert!(is_closed, "a guess is not even compared: {known:?}");
}

#[tokio::test]
async fn a_removed_user_has_neither_password_nor_token() {
    let world = World::with_alice().await;
    let (_, secret) = world.accounts.issue_token(&alice(), "").await.unwrap();
    assert_eq!(world.login("alice", "secret").await, OK);
    let mut events = world.accounts.events();
    let id = world.user().await.id;
    assert_eq!(world.accounts.remove_user(&alice()).await, Ok(()));
    assert_eq!(world.login("alice", "secret").await, BAD);
    assert_eq!(world.login("alice", &secret).await, BAD);
    let event = events.try_recv().unwrap();
    assert_eq!((event.user, event.change), (id, UserChange::Removed));
    let again = world.accounts.remove_user(&alice()).await;
    assert_eq!(again, Err(AccountError::NoSuchUser("alice".into())));
}

#[tokio::test]
async fn a_token_lets_its_user_in_until_it_is_revoked() {
    let world = World::with_alice().await;
    world.accounts.add_user(bob(), None).await.unwrap();
    let (token, secret) = world.accounts.issue_token(&alice(), "phone").await.unwrap();
    assert_eq!(world.login("alice", &secret).await, OK);
    assert_eq!(world.login("bob", &secret).await, BAD);
    let listed = world.accounts.list_tokens(&alice()).await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&token));

    let not_his = world.accounts.revoke_token(&bob(), &token.id).await;
    assert_eq!(not_his, Err(AccountError::NoSuchToken(token.id.clone())));
    let mut events = world.accounts.events();
    let revoked = world.accounts.revoke_token(&alice(), &token.id).await;
    assert_eq!(revoked, Ok(()));
    let event = events.try_recv().unwrap();
    let expected = (token.user, UserChange::TokenRevoked);
    assert_eq!((event.user, event.change), expected);
    assert_eq!(world.login("alice", &secret).await, BAD);
}

#[tokio::test]
async fn tokens_of_a_user_are_bounded() {
    let world = World::with_alice().await;
    for _ in 0..2 {
        world.accounts.issue_token(&alice(), "").await.unwrap();
    }
    let third = world.accounts.issue_token(&alice(), "").await;
    assert_eq!(third.unwrap_err(), AccountError::TooManyTokens { max: 2 });
}

#[tokio::test]
async fn a_user_without_password_logs_in_by_token_only() {
    let world = World::new(false);
    world.accounts.add_user(alice(), None).await.unwrap();
    assert_eq!(world.login("alice", "anything").await, BAD);
    let (_, secret) = world.accounts.issue_token(&alice(), "").await.unwrap();
    assert_eq!(world.login("alice", &secret).await, OK);
}

#[tokio::test]
async fn first_connect_makes_the_user_in_dev_mode_only() {
    let world = World::new(true);
    assert_eq!(world.login("alice", "secret").await, OK);
    assert_eq!(world.login("alice", "secret").await, OK);
    assert_eq!(world.login("alice", "wrong").await, BAD);
    assert_eq!(world.login("Not A Handle", "secret").await, BAD);
    let token = format!("mqt_{}", "0".repeat(64));
    assert_eq!(world.login("bob", &token).await, BAD);
    assert_eq!(world.login("bob", "mqt_short").await, BAD);
    assert_eq!(world.login("bob", "").await, BAD);
    let users = world.accounts.list_users(None, 10).await.unwrap();
    assert_eq!(users.len(), 1);
}

#[tokio::test]
async fn of_two_first_connects_at_once_one_makes_the_user() {
    for (other, let_in) in [("secret", 2), ("different", 1)] {
        let world = World::new(true);
        let occupied = world.accounts.hashing.occupy();
        let mut first = Box::pin(world.login("alice", "secret"));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut second = Box::pin(world.login("alice", other));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(occupied);
        let (first, second) = tokio::join!(first, second);
        let known = [first, second].into_iter().filter(|login| *login == OK);
        assert_eq!(known.count(), let_in);
        let users = world.accounts.list_users(None, 10).await.unwrap();
        assert_eq!(users.len(), 1);
    }
}

#[tokio::test]
async fn the_handle_of_a_removed_user_is_not_made_again_by_connecting() {
    let world = World::new(true);
    assert_eq!(world.login("alice", "secret").await, OK);
    world.accounts.remove_user(&alice()).await.unwrap();
    assert_eq!(world.login("alice", "secret").await, BAD);
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_no_wrong_password() {
    let world = World::with_alice().await;
    world.store.close().await.unwrap();
    let login = world.login("alice", "secret").await;
    assert!(matches!(login, Err(AuthError::Store(_))), "{login:?}");
}

#[tokio::test]
async fn a_removal_during_a_change_of_password_or_name_stays() {
    let world = World::with_alice().await;
    let (id, handle) = (world.user().await.id, alice());
    let occupied = world.accounts.hashing.occupy();
    let mut change = Box::pin(world.accounts.set_password(&handle, b"other"));
    assert!(futures_util::poll!(&mut change).is_pending());
    assert_eq!(world.accounts.remove_user(&handle).await, Ok(()));
    drop(occupied);
    let gone = Err(AccountError::NoSuchUser("alice".into()));
    assert_eq!(change.await, gone);
    assert!(world.accounts.set_name(id, "A".into()).await.is_err());
    let user = world.store.user(id).await.unwrap().unwrap();
    assert!(user.removed_ms.is_some() && user.password_hash.is_none());
}

#[tokio::test]
async fn bad_passwords_and_names_are_refused_with_the_reason() {
    let world = World::with_alice().await;
    let set = async |password: &str| {
        let alice = alice();
        let changed = world.accounts.set_password(&alice, password.as_bytes());
        changed.await.unwrap_err().to_string()
    };
    assert_eq!(set("").await, "a password has 1 to 1024 bytes");
    let long = "x".repeat(1_025);
    assert_eq!(set(&long).await, "a password has 1 to 1024 bytes");
    assert_eq!(
        set("mqt_x").await,
        "a password cannot begin with mqt_: tokens do"
    );
    let again = world.accounts.add_user(alice(), None).await;
    assert_eq!(again, Err(AccountError::HandleTaken(alice())));
    let labelled = world.accounts.issue_token(&alice(), "a\u{1b}[2J").await;
    assert_eq!(labelled, Err(AccountError::LabelWithControls));
}

#[tokio::test]
async fn an_unknown_user_costs_a_hash_like_a_known_one() {
    let world = World::with_alice().await;
    world.accounts.add_user(bob(), None).await.unwrap();
    for user in ["alice", "bob", "nobody"] {
        let occupied = world.accounts.hashing.occupy();
        let mut login = Box::pin(world.login(user, "wrong"));
        let first = futures_util::poll!(&mut login);
        assert!(first.is_pending(), "{user} is not answered without a hash");
        drop(occupied);
        assert_eq!(login.await, BAD);
    }
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let world = World::with_alice().await;
    let text = format!("{:?}", world.accounts);
    assert!(
        !text.contains("secret") && !text.contains("argon2id$"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn failed_logins_close_the_way_for_a_name_from_an_address_only() {
    let world = World::with_alice().await;
    let (_, token) = world.accounts.issue_token(&alice(), "").await.unwrap();
    let other: IpAddr = [192, 0, 2, 2].into();
    let burst = AccountsConfig::default().login_failures_burst;
    for _ in 0..burst {
        assert_eq!(world.login("alice", "wrong").await, BAD);
    }
    // Without a hash: all threads are occupied.
    let occupied = world.accounts.hashing.occupy();
    for password in ["wrong", "secret"] {
        let refused = world.login("alice", password).await;
        assert!(matches!(refused, Err(AuthError::Throttled { .. })));
    }
    drop(occupied);
    let from_elsewhere = world.accounts.authenticate(other, "alice", b"secret");
    assert!(from_elsewhere.await.is_ok());
    assert_eq!(world.login("alice", &token).await, OK, "tokens go on");
    assert_eq!(world.login("bob", "wrong").await, BAD, "other names too");
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(world.login("alice", "secret").await, OK);
    for _ in 0..burst {
        assert_eq!(world.login("alice", "wrong").await, BAD, "full again");
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_that_fail_count_but_do_not_close_the_way_for_the_password() {
    let world = World::with_alice().await;
    let revoked = format!("mqt_{}", "0".repeat(64));
    for _ in 0..AccountsConfig::default().login_failures_burst {
        assert_eq!(world.login("alice", &revoked).await, BAD);
    }
    let refused = world.login("alice", &revoked).await;
    assert!(matches!(refused, Err(AuthError::Throttled { .. })));
    assert_eq!(world.login("alice", "secret").await, OK);
}

/// Made by `mosquitto_passwd` of `alice-secret`.
const IMPORTED: &str = "$7$101$21Jr9G9OKVDrLCtI$+vCLiQtxB6EXCAA7zS0tXRwfetWaT+YhEUwryn5RTji4n8y2JUIaQCzt3U8cQm7x1qNYn+9Vft8ZzNR+FMd7TA==";

#[tokio::test]
async fn an_imported_hash_is_replaced_at_the_first_right_login() {
    let world = World::new(false);
    world.accounts.import_user(alice(), IMPORTED).await.unwrap();
    assert_eq!(world.login("alice", "other").await, BAD);
    assert_eq!(world.user().await.password_hash.as_deref(), Some(IMPORTED));
    let mut events = world.accounts.events();
    assert_eq!(world.login("alice", "alice-secret").await, OK);
    let phc = world.user().await.password_hash.unwrap();
    assert!(phc.starts_with("$argon2id$"), "{phc}");
    assert!(events.try_recv().is_err(), "no connection has to end");
    let occupied = world.accounts.hashing.occupy();
    assert_eq!(world.login("alice", "alice-secret").await, OK);
    drop(occupied);
    assert_eq!(world.login("alice", "other").await, BAD);
}

#[tokio::test]
async fn of_two_first_logins_with_an_imported_hash_both_are_let_in() {
    let world = World::new(false);
    world.accounts.import_user(alice(), IMPORTED).await.unwrap();
    let both = (0..2).map(|_| world.login("alice", "alice-secret"));
    assert_eq!(futures_util::future::join_all(both).await, [OK, OK]);
    let wrong = ["alice-secret", "other"].map(|password| world.login("alice", password));
    assert_eq!(futures_util::future::join_all(wrong).await, [OK, BAD]);
}

#[tokio::test]
async fn an_imported_hash_that_was_replaced_meanwhile_counts_no_more() {
    for (password_hash, allowed) in [
        (None, BAD),
        (Some("other"), BAD),
        (Some("alice-secret"), OK),
    ] {
        let world = World::new(false);
        world.accounts.import_user(alice(), IMPORTED).await.unwrap();
        let occupied = world.accounts.hashing.occupy();
        let mut login = Box::pin(world.login("alice", "alice-secret"));
        assert!(futures_util::poll!(&mut login).is_pending());
        let mut user = world.user().await;
        let other = World::new(false);
        user.password_hash = match password_hash {
            Some(password) => {
                let kept = other.accounts.hashing.keep(password.as_bytes()).await;
                Some(kept.unwrap().phc)
            }
            None => None,
        };
        world.store.update_user(user).await.unwrap();
        drop(occupied);
        assert_eq!(login.await, allowed);
    }
}

#[tokio::test]
async fn only_hashes_of_mosquitto_and_free_handles_are_imported() {
    let world = World::with_alice().await;
    let import = async |handle: Handle, hash| world.accounts.import_user(handle, hash).await;
    let refused = import(bob(), "plain-text").await;
    assert_eq!(refused.unwrap_err(), AccountError::UnknownHash);
    let refused = import(alice(), IMPORTED).await;
    assert_eq!(refused.unwrap_err(), AccountError::HandleTaken(alice()));
    assert_eq!(world.login("alice", "secret").await, OK);
}

#[tokio::test]
async fn a_certificate_lets_its_user_in_only_where_it_may() {
    for (allowed, dev, name, expected) in [
        (true, false, "alice", OK),
        (false, false, "alice", BAD),
        (true, false, "bob", BAD),
        (true, false, "Alice", BAD),
        (false, true, "bob", BAD),
        (true, true, "bob", OK),
    ] {
        let config = AccountsConfig {
            certificate_login: allowed,
            ..AccountsConfig::default()
        };
        let accounts = Accounts::new(store_in_memory(), &config, dev).unwrap();
        accounts.add_user(alice(), None).await.unwrap();
        for _ in 0..2 {
            let user = accounts.login_by_certificate(name).await;
            assert_eq!(user.map(|_| ()), expected, "{name}");
        }
    }
}

fn by_scram() -> AuthenticateRequest {
    AuthenticateRequest {
        client_id: "phone".into(),
        user_name: None,
        password: None,
        peer: broker::hooks::Peer::Network((home(), 1).into()),
        certificate: None,
        version: broker::codec::packet::Version::V5,
    }
}

async fn credential(world: &World, name: &str) -> Option<Credential> {
    let found = world.accounts.scram_credential(name, &by_scram()).await;
    found.unwrap()
}

async fn scram(world: &World, name: &str, proved: Option<&Credential>) -> Result<(), AuthError> {
    let login = world.accounts.scram_login(name, &by_scram(), proved).await;
    login.map(|user| assert_eq!(user.handle.as_str(), name))
}

#[tokio::test]
async fn keys_for_scram_are_kept_with_each_new_password_and_go_with_the_user() {
    let world = World::over(store_in_memory(), true, true);
    assert_eq!(credential(&world, "alice").await, None);
    assert_eq!(world.login("alice", "secret").await, OK, "made by --dev");
    let first = credential(&world, "alice").await.unwrap();
    assert_eq!(
        first,
        Credential::derive(b"secret", &first.salt, broker::scram::ITERATIONS)
    );
    assert_eq!(scram(&world, "alice", Some(&first)).await, OK);
    assert_eq!(scram(&world, "alice", None).await, BAD);
    let changed = world.accounts.set_password(&alice(), b"other").await;
    assert_eq!(changed, Ok(()));
    let second = credential(&world, "alice").await.unwrap();
    assert_ne!(first.salt, second.salt);
    let stale = scram(&world, "alice", Some(&first)).await;
    assert_eq!(stale, BAD, "proved before the change");
    assert_eq!(world.accounts.remove_user(&alice()).await, Ok(()));
    assert_eq!(credential(&world, "alice").await, None);
    assert_eq!(scram(&world, "alice", Some(&second)).await, BAD);
    for not_a_handle in ["", "A", "a/b"] {
        assert_eq!(credential(&world, not_a_handle).await, None);
    }
}

#[tokio::test]
async fn keys_for_scram_follow_the_option_at_the_next_login_with_the_password() {
    let world = World::with_alice().await.with_scram(true);
    assert_eq!(credential(&world, "alice").await, None);
    assert_eq!(world.login("alice", "wrong").await, BAD);
    assert_eq!(credential(&world, "alice").await, None);
    assert_eq!(world.login("alice", "secret").await, OK);
    let keys = credential(&world, "alice").await.unwrap();
    assert_eq!(scram(&world, "alice", Some(&keys)).await, OK);
    let world = world.with_scram(false);
    assert_eq!(world.login("alice", "secret").await, OK);
    assert_eq!(world.user().await.scram, None);
}

#[tokio::test]
async fn an_imported_user_gets_keys_for_scram_at_the_first_login() {
    let world = World::over(store_in_memory(), false, true);
    world.accounts.import_user(alice(), IMPORTED).await.unwrap();
    assert_eq!(credential(&world, "alice").await, None);
    assert_eq!(world.login("alice", "alice-secret").await, OK);
    let keys = credential(&world, "alice").await.unwrap();
    assert_eq!(scram(&world, "alice", Some(&keys)).await, OK);
}

#[tokio::test(start_paused = true)]
async fn proofs_by_scram_are_counted_with_passwords_and_many_at_once_like_many_in_a_row() {
    let world = World::with_alice().await.with_scram(true);
    assert_eq!(world.login("alice", "secret").await, OK);
    let keys = credential(&world, "alice").await.unwrap();
    for _ in 0..AccountsConfig::default().login_failures_burst {
        assert_eq!(scram(&world, "alice", None).await, BAD);
    }
    for proved in [None, Some(&keys)] {
        let closed = scram(&world, "alice", proved).await;
        assert!(matches!(closed, Err(AuthError::Throttled { .. })));
    }
    let closed = world.accounts.scram_credential("alice", &by_scram()).await;
    assert!(matches!(closed, Err(AuthError::Throttled { .. })));
    let closed = world.login("alice", "secret").await;
    assert!(matches!(closed, Err(AuthError::Throttled { .. })));
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(scram(&world, "alice", Some(&keys)).await, OK);
    assert_eq!(world.accounts.logins_refused(), 13);
}
