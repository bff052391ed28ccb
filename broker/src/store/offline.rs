//! What is done with a store that nobody has open: moving its rows between engines, and giving back space.
//!
//! The file of a dump is drawn in `docs/storage.md`.

use std::fs::{File, OpenOptions as FileOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::bulk::{Loader, each_row};
use super::directory::{Directory, Format, disk_usage, unavailable};
use super::kv::{EngineError, KvEngine, Table};
use super::recover::last_commit;
use super::watermark::Watermark;
use super::{EngineKind, OpenOptions};

/// Stands where a table would, before the count.
const END: u8 = 0xFF;
/// Larger keys and values are not written by any store of ours.
const KEY_BYTES_MAX: usize = 1024;
const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A store on the disk, and how its dumps begin.
#[derive(Clone, Debug)]
pub struct Place {
    /// What keeps it.
    pub engine: EngineKind,
    /// Where.
    pub directory: PathBuf,
    /// How its directory is known.
    pub format: Format,
    /// The schema of today.
    pub schema: u32,
    /// How its engine is opened.
    pub options: OpenOptions,
    /// The first line of a dump.
    pub title: &'static str,
}

/// Why a store was not dumped, loaded or compacted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfflineError {
    /// The file of the dump cannot be written or read, or is no dump.
    #[error("{0}")]
    File(String),
    /// There is a store where one was to be made.
    #[error("there is a store already")]
    Exists,
    /// The engine refuses.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What was dumped or loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dumped {
    /// Number of rows.
    pub rows: u64,
    /// SHA-256 of the dump.
    pub checksum: [u8; 32],
}

/// What [`Place::compact`] gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of disk before.
    pub before_bytes: u64,
    /// Bytes of disk after.
    pub after_bytes: u64,
}

impl Place {
    /// Is there a store?
    ///
    /// # Errors
    /// Its marker makes no sense.
    pub fn exists(&self) -> Result<bool, EngineError> {
        match Directory::engine_of(&self.directory, self.format) {
            Ok(_) => Ok(true),
            Err(EngineError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes all rows of a store that nobody has open into a file, which must not exist.
    ///
    /// # Errors
    /// [`OfflineError::File`] if the file exists or cannot be written; otherwise those of the engine.
    pub fn dump(&self, path: &Path) -> Result<Dumped, OfflineError> {
        let mut dumped = None;
        let work = DumpTo {
            place: self,
            path,
            dumped: &mut dumped,
        };
        self.with_engine(Purpose::Use, work)?;
        let nothing = || EngineError::Io("nothing was dumped".to_owned()).into();
        dumped.ok_or_else(nothing)
    }

    /// Reads the whole of a dump, and does nothing with it.
    ///
    /// # Errors
    /// [`OfflineError::File`] if the file is not a complete dump of such a store.
    pub fn check_dump(&self, path: &Path) -> Result<Dumped, OfflineError> {
        self.read_dump(path, &mut |_, _, _| Ok(()))
    }

    /// Reads a dump into a store that is made by this. The whole file is checked before the first row is written.
    ///
    /// # Errors
    /// As [`Place::check_dump`], [`OfflineError::Exists`] if there is a store; otherwise those of the engine.
    pub fn load(&self, path: &Path) -> Result<Dumped, OfflineError> {
        let dumped = self.check_dump(path)?;
        self.with_engine(Purpose::Make, LoadFrom { place: self, path })?;
        Ok(dumped)
    }

    /// Gives back what space a store that nobody has open does not need.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn compact(&self) -> Result<Compacted, OfflineError> {
        let usage =
            || disk_usage(&self.directory).map_err(|error| unavailable(&self.directory, &error));
        Directory::engine_of(&self.directory, self.format)?;
        let before_bytes = usage()?;
        match self.engine {
            #[cfg(feature = "sled")]
            EngineKind::Sled => {
                let directory = Directory::open(&self.directory, self.format, self.engine.name())?;
                super::sled::compact_at(&directory, &self.options)?;
            }
            #[cfg(feature = "fjall")]
            EngineKind::Fjall => {
                let directory = Directory::open(&self.directory, self.format, self.engine.name())?;
                super::fjall::compact_at(&directory, &self.options, self.schema)?;
            }
            #[allow(
                unreachable_patterns,
                reason = "it depends on the engines that are built in"
            )]
            other => return Err(not_built(other).into()),
        }
        Ok(Compacted {
            before_bytes,
            after_bytes: usage()?,
        })
    }

    fn with_engine(&self, purpose: Purpose, work: impl Work) -> Result<(), OfflineError> {
        if self.engine == EngineKind::Memory {
            let nothing = EngineError::Io("the engine memory keeps nothing".to_owned());
            return Err(nothing.into());
        }
        if purpose == Purpose::Use {
            Directory::engine_of(&self.directory, self.format)?;
        }
        let directory = Directory::open(&self.directory, self.format, self.engine.name())?;
        if purpose == Purpose::Make && !directory.is_new() {
            return Err(OfflineError::Exists);
        }
        match self.engine {
            #[cfg(feature = "fjall")]
            EngineKind::Fjall => {
                let engine = super::fjall::FjallEngine::open(&directory, &self.options)?;
                self.work_on(engine, directory, purpose, work)
            }
            #[cfg(feature = "sled")]
            EngineKind::Sled => {
                let engine = super::sled::SledEngine::open(&directory, &self.options)?;
                self.work_on(engine, directory, purpose, work)
            }
            #[allow(
                unreachable_patterns,
                reason = "it depends on the engines that are built in"
            )]
            other => Err(not_built(other).into()),
        }
    }

    #[cfg(any(feature = "fjall", feature = "sled"))]
    fn work_on(
        &self,
        engine: impl KvEngine,
        mut directory: Directory,
        purpose: Purpose,
        work: impl Work,
    ) -> Result<(), OfflineError> {
        let mut watermark = directory.watermark()?;
        if purpose == Purpose::Use {
            let known = watermark.known();
            last_commit(&engine, self.schema, known, self.options.accept_loss)?;
        }
        work.on(&engine, &mut watermark)?;
        drop(engine);
        Ok(directory.set_ready(self.options.tables)?)
    }

    /// Reads a whole dump and checks its end.
    fn read_dump(&self, path: &Path, each: &mut Each<'_>) -> Result<Dumped, OfflineError> {
        let file = File::open(path).map_err(|error| bad_file(path, &error))?;
        let mut input = Input {
            from: BufReader::new(file),
            hash: Sha256::new(),
        };
        let mut title = Vec::new();
        input.field(&mut title, self.title.len(), self.title.len())?;
        if title != self.title.as_bytes() {
            return Err(OfflineError::File(format!(
                "{} is not such a dump, or one that this program does not know",
                path.display()
            )));
        }
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut rows: u64 = 0;
        loop {
            let [byte] = input.array()?;
            if byte == END {
                break;
            }
            let table = self.table(byte).ok_or_else(|| {
                OfflineError::File(format!("the dump has rows of the unknown table {byte}"))
            })?;
            let key_len = usize::from(u16::from_be_bytes(input.array()?));
            let value_len = u32::from_be_bytes(input.array()?) as usize;
            input.field(&mut key, key_len, KEY_BYTES_MAX)?;
            input.field(&mut value, value_len, VALUE_BYTES_MAX)?;
            each(table, &key, &value)?;
            rows += 1;
        }
        let said = u64::from_be_bytes(input.array()?);
        let checksum: [u8; 32] = input.hash.clone().finalize().into();
        if said != rows || input.array::<32>()? != checksum {
            return Err(OfflineError::File(
                "the checksum of the dump is wrong".to_owned(),
            ));
        }
        Ok(Dumped { rows, checksum })
    }

    fn table(&self, byte: u8) -> Option<Table> {
        let mut tables = self.options.tables.iter();
        tables.find(|table| table.to_byte() == byte).copied()
    }
}

/// What is called for each row.
type Each<'a> = dyn FnMut(Table, &[u8], &[u8]) -> Result<(), OfflineError> + 'a;

/// What is done with an engine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The store exists.
    Use,
    /// It must not.
    Make,
}

/// Work on whichever engine the options name.
trait Work {
    fn on(self, engine: &impl KvEngine, watermark: &mut Watermark) -> Result<(), OfflineError>;
}

struct DumpTo<'a> {
    place: &'a Place,
    path: &'a Path,
    dumped: &'a mut Option<Dumped>,
}

impl Work for DumpTo<'_> {
    fn on(self, engine: &impl KvEngine, _: &mut Watermark) -> Result<(), OfflineError> {
        let io = |error: std::io::Error| bad_file(self.path, &error);
        // It may hold every message and every password hash.
        let file = FileOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path)
            .map_err(io)?;
        let mut out = Output::new(BufWriter::new(file));
        out.write(self.place.title.as_bytes()).map_err(io)?;
        each_row(
            engine,
            self.place.options.tables,
            &mut |table, key, value| out.row(table, key, value).map_err(io),
        )?;
        *self.dumped = Some(out.finish().map_err(io)?);
        Ok(())
    }
}

struct LoadFrom<'a> {
    place: &'a Place,
    path: &'a Path,
}

impl Work for LoadFrom<'_> {
    fn on(self, engine: &impl KvEngine, watermark: &mut Watermark) -> Result<(), OfflineError> {
        let mut loader = Loader::new(engine);
        self.place.read_dump(self.path, &mut |table, key, value| {
            Ok(loader.add(table, key, value)?)
        })?;
        loader.finish()?;
        let commit = last_commit(engine, self.place.schema, None, false)?;
        watermark
            .write(commit)
            .map_err(|error| EngineError::Io(format!("commit watermark: {error}")).into())
    }
}

/// A file that is hashed while it is written.
struct Output<W: Write> {
    out: W,
    hash: Sha256,
    rows: u64,
}

impl<W: Write> Output<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            hash: Sha256::new(),
            rows: 0,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }

    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> std::io::Result<()> {
        let too_long = |_| std::io::Error::other("a row is too long for a dump");
        let key_len = u16::try_from(key.len()).map_err(too_long)?;
        let value_len = u32::try_from(value.len()).map_err(too_long)?;
        self.write(&[table.to_byte()])?;
        self.write(&key_len.to_be_bytes())?;
        self.write(&value_len.to_be_bytes())?;
        self.write(key)?;
        self.write(value)?;
        self.rows += 1;
        Ok(())
    }
}

impl Output<BufWriter<File>> {
    fn finish(mut self) -> std::io::Result<Dumped> {
        self.write(&[END])?;
        self.write(&self.rows.to_be_bytes())?;
        let checksum: [u8; 32] = self.hash.finalize().into();
        self.out.write_all(&checksum)?;
        self.out
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)?
            .sync_all()?;
        Ok(Dumped {
            rows: self.rows,
            checksum,
        })
    }
}

/// A file that is hashed while it is read.
struct Input<R: Read> {
    from: R,
    hash: Sha256,
}

impl<R: Read> Input<R> {
    fn bytes(&mut self, buffer: &mut [u8]) -> Result<(), OfflineError> {
        self.from.read_exact(buffer).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                OfflineError::File("the dump is cut off".to_owned())
            } else {
                OfflineError::File(format!("dump: {error}"))
            }
        })?;
        self.hash.update(&*buffer);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], OfflineError> {
        let mut bytes = [0; N];
        self.bytes(&mut bytes)?;
        Ok(bytes)
    }

    fn field(&mut self, buffer: &mut Vec<u8>, len: usize, max: usize) -> Result<(), OfflineError> {
        if len > max {
            return Err(OfflineError::File(format!(
                "the dump has a field of {len} bytes"
            )));
        }
        buffer.resize(len, 0);
        self.bytes(buffer)
    }
}

fn not_built(engine: EngineKind) -> EngineError {
    EngineError::Io(format!(
        "this program was built without the engine {}",
        engine.name()
    ))
}

fn bad_file(path: &Path, error: &std::io::Error) -> OfflineError {
    OfflineError::File(format!("{}: {error}", path.display()))
}
