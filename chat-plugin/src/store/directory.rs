//! The store's directory: its lock, its marker, and where the engine's own files are.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::embedded::watermark::Watermark;

const LOCK: &str = "LOCK";
const MARKER: &str = "MQCHAT";
const MARKER_NEW: &str = "MQCHAT.new";
const WATERMARK: &str = "watermark";
const TITLE: &str = "mqchat store 1";

/// A locked directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    engine: &'static str,
    is_ready: bool,
    _lock: File,
}

impl Directory {
    /// Locks a directory, and makes it if it does not exist. A directory that was never finished is emptied.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it; [`StoreError::Corrupt`] if it holds something else, or the data
    /// of another engine.
    pub fn open(path: &Path, engine: &'static str) -> Result<Self, StoreError> {
        let io = |error: std::io::Error| unavailable(path, &error);
        if !path.exists() {
            std::fs::create_dir_all(path).map_err(io)?;
            path.parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .map_or(Ok(()), sync_directory)?;
        }
        let lock = lock(&path.join(LOCK))?;
        let mut directory = Self {
            path: path.to_owned(),
            engine,
            is_ready: false,
            _lock: lock,
        };
        match std::fs::read_to_string(path.join(MARKER)) {
            Ok(text) => directory.read_marker(&text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                directory.refuse_strange_files()?;
                directory.write_marker("creating")?;
            }
            Err(error) => return Err(io(error)),
        }
        Ok(directory)
    }

    /// Nothing was ever committed here.
    pub fn is_new(&self) -> bool {
        !self.is_ready
    }

    /// The name of the engine recorded in the directory at `path`, without locking it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no store, [`StoreError::Corrupt`] if the marker makes no sense.
    pub fn engine_of(path: &Path) -> Result<String, StoreError> {
        let text = match std::fs::read_to_string(path.join(MARKER)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::NotFound);
            }
            Err(error) => return Err(unavailable(path, &error)),
        };
        let (engine, _) = parse_marker(path, &text)?;
        Ok(engine.to_owned())
    }

    /// Where the engine has its files.
    pub fn engine_path(&self) -> PathBuf {
        self.path.join(self.engine)
    }

    /// Opens the commit watermark.
    pub(super) fn watermark(&self) -> Result<Watermark, StoreError> {
        Watermark::open(&self.path.join(WATERMARK))
    }

    /// The first commit is durable.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if that cannot be written.
    pub fn set_ready(&mut self) -> Result<(), StoreError> {
        if !self.is_ready {
            sync_directory(&self.path)?;
            self.write_marker("ready")?;
            self.is_ready = true;
        }
        Ok(())
    }

    fn read_marker(&mut self, text: &str) -> Result<(), StoreError> {
        let (engine, state) = parse_marker(&self.path, text)?;
        if engine != self.engine {
            return Err(StoreError::Corrupt(format!(
                "{} holds data of the engine {engine}, not {} (move it with `mqchat store dump` and `load`)",
                self.path.display(),
                self.engine
            )));
        }
        match state {
            "ready" => {
                self.is_ready = true;
                Ok(())
            }
            "creating" => self.empty(),
            other => Err(StoreError::Corrupt(format!(
                "{} has the unknown state {other}",
                self.path.join(MARKER).display()
            ))),
        }
    }

    /// Removes what an unfinished creation left.
    fn empty(&self) -> Result<(), StoreError> {
        let engine = self.engine_path();
        if engine.exists() {
            std::fs::remove_dir_all(&engine).map_err(|error| unavailable(&engine, &error))?;
        }
        let watermark = self.path.join(WATERMARK);
        if watermark.exists() {
            std::fs::remove_file(&watermark).map_err(|error| unavailable(&watermark, &error))?;
        }
        Ok(())
    }

    fn refuse_strange_files(&self) -> Result<(), StoreError> {
        let io = |error: std::io::Error| unavailable(&self.path, &error);
        for file in std::fs::read_dir(&self.path).map_err(io)? {
            let name = file.map_err(io)?.file_name();
            if name != LOCK && name != MARKER_NEW {
                return Err(StoreError::Corrupt(format!(
                    "{} is not empty ({}) and has no file {MARKER}: it is no store of mqchat, or that file was lost",
                    self.path.display(),
                    name.display()
                )));
            }
        }
        Ok(())
    }

    fn write_marker(&self, state: &str) -> Result<(), StoreError> {
        let text = format!("{TITLE}\nengine {}\nstate {state}\n", self.engine);
        let new = self.path.join(MARKER_NEW);
        let io = |error: std::io::Error| unavailable(&new, &error);
        let mut file = File::create(&new).map_err(io)?;
        file.write_all(text.as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)?;
        std::fs::rename(&new, self.path.join(MARKER)).map_err(io)?;
        sync_directory(&self.path)
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let sync = || File::open(path)?.sync_all();
    sync().map_err(|error| unavailable(path, &error))
}

/// What the files below a directory occupy on the disk, in bytes.
#[cfg(any(feature = "fjall", feature = "sled"))]
pub(super) fn disk_usage(path: &Path) -> std::io::Result<u64> {
    let mut total = 0;
    for file in std::fs::read_dir(path)? {
        // Engines remove files while we look.
        let Ok(file) = file else { continue };
        let Ok(metadata) = file.metadata() else {
            continue;
        };
        total += if metadata.is_dir() {
            disk_usage(&file.path()).unwrap_or_default()
        } else {
            occupied(&metadata)
        };
    }
    Ok(total)
}

#[cfg(all(unix, any(feature = "fjall", feature = "sled")))]
fn occupied(metadata: &std::fs::Metadata) -> u64 {
    // Not the length: engines make files longer before they write them.
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(all(not(unix), any(feature = "fjall", feature = "sled")))]
fn occupied(metadata: &std::fs::Metadata) -> u64 {
    metadata.len()
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| unavailable(path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked),
        Err(TryLockError::Error(error)) => Err(unavailable(path, &error)),
    }
}

/// Engine and state.
fn parse_marker<'a>(path: &Path, text: &'a str) -> Result<(&'a str, &'a str), StoreError> {
    let mut lines = text.lines();
    let title = lines.next();
    let engine = lines.next().and_then(|line| line.strip_prefix("engine "));
    let state = lines.next().and_then(|line| line.strip_prefix("state "));
    match (title, engine, state) {
        (Some(TITLE), Some(engine), Some(state)) => Ok((engine, state)),
        _ => Err(StoreError::Corrupt(format!(
            "{} is not the marker of a store that this mqchat knows",
            path.join(MARKER).display()
        ))),
    }
}

pub(super) fn unavailable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}
