//! The terminal client of mqchat, on the SDK: a whole screen for people, lines for pipes.
//!
//! `model` is the state of the screen, without I/O: inputs go in, effects come out. `view` draws it, `layout` turns a log into
//! lines, `app` joins terminal, SDK and model, `work` carries out effects. `line` is the other mode, on the same `work` and
//! `command`. What came from the network becomes `text::Shown` before anything else happens to it.
//!
//! It keeps nothing that the SDK does not keep, and logs nothing: what is wrong is said where the user looks.

mod app;
mod clock;
mod command;
mod compose;
mod effect;
mod items;
mod layout;
mod line;
mod model;
mod options;
mod screen;
mod text;
mod view;
mod work;

use std::fmt::Display;
use std::io::IsTerminal;
use std::path::Path;

pub use options::Options;

/// Why it ends otherwise than the user wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Something was refused, or not everything is stored.
    #[error("{0}")]
    Refused(String),
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    fn io(what: &Path, error: impl Display) -> Self {
        Self::Refused(format!("{}: {error}", what.display()))
    }

    fn usage(what: &Path, why: &str) -> Self {
        Self::Usage(format!("{}: {why}", what.display()))
    }

    fn of(error: &client_sdk::Error) -> Self {
        let why = work::explain(error);
        match error {
            client_sdk::Error::Invalid(_) => Self::Usage(why),
            _ => Self::Refused(why),
        }
    }
}

/// Chats until the user has enough.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::Refused(format!("the runtime: {error}")))?;
    let chat = async {
        let builder = options.client().await?;
        let is_screen = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        if is_screen && !options.plain {
            app::run(options, builder).await
        } else {
            line::run(options, builder).await
        }
    };
    let done = runtime.block_on(chat);
    // Who reads standard input cannot be stopped.
    runtime.shutdown_background();
    done
}
