//! The store's directory: its lock, its marker, and where the engine's own files are.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::kv::{EngineError, Table};
use super::watermark::Watermark;

const LOCK: &str = "LOCK";
const WATERMARK: &str = "watermark";

/// By what the directory of one kind of store is known.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Name of the marker file.
    pub marker: &'static str,
    /// Its first line.
    pub title: &'static str,
    /// The first bytes of each slot of the watermark.
    pub watermark: [u8; 8],
}

/// A locked directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    format: Format,
    engine: &'static str,
    is_ready: bool,
    /// Names of the tables that the engine has.
    tables: Vec<String>,
    _lock: File,
}

impl Directory {
    /// Locks a directory, and makes it if it does not exist. A directory that was never finished is emptied.
    ///
    /// # Errors
    /// [`EngineError::Locked`] if another process has it; [`EngineError::Corrupt`] if it holds something else, or the data
    /// of another engine.
    pub fn open(path: &Path, format: Format, engine: &'static str) -> Result<Self, EngineError> {
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
            format,
            engine,
            is_ready: false,
            tables: Vec::new(),
            _lock: lock,
        };
        match std::fs::read_to_string(path.join(format.marker)) {
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
    /// [`EngineError::NotFound`] if there is no store, [`EngineError::Corrupt`] if the marker makes no sense.
    pub fn engine_of(path: &Path, format: Format) -> Result<String, EngineError> {
        let text = match std::fs::read_to_string(path.join(format.marker)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(EngineError::NotFound);
            }
            Err(error) => return Err(unavailable(path, &error)),
        };
        Ok(parse_marker(path, format, &text)?.engine.to_owned())
    }

    /// Where the engine has its files.
    pub fn engine_path(&self) -> PathBuf {
        self.path.join(self.engine)
    }

    /// Opens the commit watermark.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] if it makes no sense, [`EngineError::Io`] if it cannot be read or made.
    pub fn watermark(&self) -> Result<Watermark, EngineError> {
        Watermark::open(&self.path.join(WATERMARK), self.format.watermark)
    }

    /// The engine was ready with this table: its files must be there.
    pub fn has(&self, table: Table) -> bool {
        self.tables.iter().any(|name| name == table.name())
    }

    /// The first commit is durable, and the engine has these tables.
    ///
    /// # Errors
    /// [`EngineError::Io`] if that cannot be written.
    pub fn set_ready(&mut self, tables: &[Table]) -> Result<(), EngineError> {
        if self.is_ready && tables.iter().all(|table| self.has(*table)) {
            return Ok(());
        }
        let names: Vec<_> = tables.iter().map(|table| table.name().to_owned()).collect();
        sync_directory(&self.path)?;
        self.write_marker(&format!("ready\ntables {}", names.join(" ")))?;
        self.is_ready = true;
        self.tables = names;
        Ok(())
    }

    fn read_marker(&mut self, text: &str) -> Result<(), EngineError> {
        let Marker {
            engine,
            state,
            tables,
        } = parse_marker(&self.path, self.format, text)?;
        if engine != self.engine {
            return Err(EngineError::Corrupt(format!(
                "{} holds data of the engine {engine}, not {} (a dump can be loaded into another engine)",
                self.path.display(),
                self.engine
            )));
        }
        match state {
            "ready" => {
                self.is_ready = true;
                self.tables = tables.split(' ').map(str::to_owned).collect();
                Ok(())
            }
            "creating" => self.empty(),
            other => Err(EngineError::Corrupt(format!(
                "{} has the unknown state {other}",
                self.path.join(self.format.marker).display()
            ))),
        }
    }

    /// Removes what an unfinished creation left.
    fn empty(&self) -> Result<(), EngineError> {
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

    fn refuse_strange_files(&self) -> Result<(), EngineError> {
        let io = |error: std::io::Error| unavailable(&self.path, &error);
        for file in std::fs::read_dir(&self.path).map_err(io)? {
            let name = file.map_err(io)?.file_name();
            if name != LOCK && Path::new(&name) != self.marker_draft() {
                return Err(EngineError::Corrupt(format!(
                    "{} is not empty ({}) and has no file {}: it is not such a store, or that file was lost",
                    self.path.display(),
                    name.display(),
                    self.format.marker
                )));
            }
        }
        Ok(())
    }

    fn write_marker(&self, state: &str) -> Result<(), EngineError> {
        let (title, engine) = (self.format.title, self.engine);
        let text = format!("{title}\nengine {engine}\nstate {state}\n");
        let new = self.path.join(self.marker_draft());
        let io = |error: std::io::Error| unavailable(&new, &error);
        let mut file = File::create(&new).map_err(io)?;
        file.write_all(text.as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)?;
        std::fs::rename(&new, self.path.join(self.format.marker)).map_err(io)?;
        sync_directory(&self.path)
    }

    /// The marker file until it is complete.
    fn marker_draft(&self) -> PathBuf {
        format!("{}.new", self.format.marker).into()
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), EngineError> {
    let sync = || File::open(path)?.sync_all();
    sync().map_err(|error| unavailable(path, &error))
}

/// What the files below a directory occupy on the disk, in bytes.
///
/// # Errors
/// The directory cannot be read.
#[cfg(any(feature = "fjall", feature = "sled"))]
pub fn disk_usage(path: &Path) -> std::io::Result<u64> {
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

/// Bytes that are free on the disk of a directory.
///
/// # Errors
/// The disk does not say.
#[cfg(all(unix, feature = "fjall"))]
pub(super) fn disk_free(path: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(all(not(unix), feature = "fjall"))]
pub(super) fn disk_free(_path: &Path) -> std::io::Result<u64> {
    Ok(u64::MAX)
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

fn lock(path: &Path) -> Result<File, EngineError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| unavailable(path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EngineError::Locked),
        Err(TryLockError::Error(error)) => Err(unavailable(path, &error)),
    }
}

/// What a marker says; the tables are names with a space between, none while the state is `creating`.
struct Marker<'a> {
    engine: &'a str,
    state: &'a str,
    tables: &'a str,
}

fn parse_marker<'a>(path: &Path, format: Format, text: &'a str) -> Result<Marker<'a>, EngineError> {
    let mut lines = text.lines();
    let title = lines.next();
    let engine = lines.next().and_then(|line| line.strip_prefix("engine "));
    let state = lines.next().and_then(|line| line.strip_prefix("state "));
    let tables = lines.next().and_then(|line| line.strip_prefix("tables "));
    match (title, engine, state) {
        (Some(title), Some(engine), Some(state))
            if title == format.title && (state != "ready" || tables.is_some()) =>
        {
            Ok(Marker {
                engine,
                state,
                tables: tables.unwrap_or_default(),
            })
        }
        _ => Err(EngineError::Corrupt(format!(
            "{} is not the marker of a store that this program knows",
            path.join(format.marker).display()
        ))),
    }
}

/// The error for a file that the operating system refuses.
pub fn unavailable(path: &Path, error: &std::io::Error) -> EngineError {
    EngineError::Io(format!("{}: {error}", path.display()))
}
