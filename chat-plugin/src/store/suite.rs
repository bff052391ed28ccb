//! What every backend has to pass. Each test is a story told once, and run for each engine.

mod account;
mod acts;
mod appending;
mod audit;
mod contacts;
mod control;
#[cfg(all(feature = "fjall", feature = "sled"))]
mod crash;
mod devices;
mod erasure;
mod held;
mod joining;
mod members;
mod mentions;
mod poison;
mod purge;
mod readers;
mod reading;
mod retention;
mod scheduled;
mod world;

/// Runs each of these stories for every engine.
macro_rules! stories {
    ($($story:ident),+ $(,)?) => {
        mod memory {
            use super::super::world::World;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story(World::memory()).await;
            })+
        }
        #[cfg(feature = "fjall")]
        mod fjall {
            use super::super::world::World;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story(World::fjall()).await;
            })+
        }
        #[cfg(feature = "sled")]
        mod sled {
            use super::super::world::World;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story(World::sled()).await;
            })+
        }
    };
}
use stories;
