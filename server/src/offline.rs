//! `mqchat store …`: what is done with the chat and the sessions at rest while no server runs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use broker::store::offline::{Compacted, Dumped, OfflineError, Place};
use chat_plugin::store::StoreError;

use crate::Failure;
use crate::cli::AtRest;
use crate::config::Config;
use crate::serve::{self, session_options};

/// Does it, and says what was done.
pub(crate) fn run(command: AtRest, config: &Config) -> Result<String, Failure> {
    let chat = config.store_options().place();
    let sessions = session_options(config).place();
    match command {
        AtRest::Compact => compact(&chat, &sessions),
        AtRest::Dump { file } => dump(&chat, &sessions, &file),
        AtRest::Load { file } => {
            // A mistyped name makes no data directory.
            std::fs::File::open(&file).map_err(Failure::io(file.display().to_string()))?;
            serve::make_data_dir(&config.server.data_dir)?;
            load(&chat, &sessions, &file)
        }
    }
}

fn compact(chat: &Place, sessions: &Place) -> Result<String, Failure> {
    let told = |what: &str, done: Compacted| {
        let (before, after) = (done.before_bytes, done.after_bytes);
        format!("{what}: {before} → {after} bytes on disk")
    };
    let first = chat.compact().map_err(failure(chat))?;
    let mut text = told("store", first);
    if exists(sessions)? {
        let second = sessions.compact().map_err(failure(sessions))?;
        text.push('\n');
        text.push_str(&told("sessions", second));
    }
    Ok(text)
}

fn dump(chat: &Place, sessions: &Place, file: &Path) -> Result<String, Failure> {
    let beside = sessions_file(file);
    for file in [file, &beside] {
        if file.exists() {
            return Err(Failure::Refused(format!(
                "{} exists: a dump overwrites nothing, choose another name",
                file.display()
            )));
        }
    }
    let dumped = chat.dump(file).map_err(failure(chat))?;
    if !exists(sessions)? {
        return Ok(told(file, dumped));
    }
    let others = sessions.dump(&beside).map_err(failure(sessions))?;
    Ok(format!("{}\n{}", told(file, dumped), told(&beside, others)))
}

fn load(chat: &Place, sessions: &Place, file: &Path) -> Result<String, Failure> {
    let beside = sessions_file(file);
    let with_sessions = beside.exists();
    if with_sessions {
        // Both or none.
        chat.check_dump(file).map_err(failure(chat))?;
        sessions.check_dump(&beside).map_err(failure(sessions))?;
        if exists(sessions)? {
            return Err(failure(sessions)(OfflineError::Exists));
        }
    }
    let loaded = chat.load(file).map_err(failure(chat))?;
    if !with_sessions {
        let beside = beside.display();
        let told = told(file, loaded);
        return Ok(format!("{told}\nno sessions: there is no {beside}"));
    }
    let others = sessions.load(&beside).map_err(failure(sessions))?;
    Ok(format!("{}\n{}", told(file, loaded), told(&beside, others)))
}

fn sessions_file(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".sessions");
    name.into()
}

fn exists(place: &Place) -> Result<bool, Failure> {
    place
        .exists()
        .map_err(|error| failure(place)(OfflineError::Engine(error)))
}

fn told(file: &Path, dumped: Dumped) -> String {
    use std::fmt::Write;
    let mut text = format!("{}: {} rows, SHA-256 ", file.display(), dumped.rows);
    for byte in dumped.checksum {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

fn failure(place: &Place) -> impl FnOnce(OfflineError) -> Failure {
    let directory = place.directory.clone();
    |error| match StoreError::from(error) {
        StoreError::File(why) => Failure::Refused(why),
        StoreError::Exists => Failure::Refused(format!(
            "there is a store in {} already: `load` fills a new one only",
            directory.display()
        )),
        error => Failure::Store { directory, error },
    }
}
