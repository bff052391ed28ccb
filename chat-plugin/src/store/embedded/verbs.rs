//! The verbs of the store, by subject.

mod conversations;
mod devices;
mod joining;
mod log;
mod marks;
mod moderation;
mod people;
mod retention;
mod waiting;
