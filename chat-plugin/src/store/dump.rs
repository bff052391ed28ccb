//! Moving data between engines, and giving back space: offline, for the command line.
//!
//! The file of a dump is drawn in `docs/storage.md`.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use broker::store::bulk::{Loader, each_row};
use broker::store::directory::{Directory, unavailable};
use broker::store::kv::{KvEngine, Table};
use broker::store::recover::last_commit;
use broker::store::watermark::Watermark;
use sha2::{Digest, Sha256};

use super::embedded::SCHEMA;
use super::options::{EngineKind, FORMAT};
use super::{StoreError, StoreOptions, tables};

const TITLE: &[u8; 14] = b"mqchat dump 1\n";
/// Stands where a table would, before the count.
const END: u8 = 0xFF;
/// Larger keys and values are not written by any mqchat.
const KEY_BYTES_MAX: usize = 1024;
const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What was dumped or loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dumped {
    /// Number of rows.
    pub rows: u64,
    /// SHA-256 of the dump.
    pub checksum: [u8; 32],
}

/// What [`compact`] gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of disk before.
    pub before_bytes: u64,
    /// Bytes of disk after.
    pub after_bytes: u64,
}

/// Writes all rows of a store that nobody has open into a file, which must not exist.
///
/// # Errors
/// As [`super::open`]; [`StoreError::File`] if the file exists or cannot be written.
pub fn dump(options: &StoreOptions, path: &Path) -> Result<Dumped, StoreError> {
    let mut dumped = None;
    let work = DumpTo {
        path,
        dumped: &mut dumped,
    };
    with_engine(options, Purpose::Use, work)?;
    dumped.ok_or_else(|| StoreError::Unavailable("nothing was dumped".to_owned()))
}

/// Reads a dump into a store that is made by this. The whole file is checked before the first row is written.
///
/// # Errors
/// [`StoreError::File`] if the file is not a complete dump, [`StoreError::Exists`] if there is a store; otherwise as
/// [`super::open`].
pub fn load(options: &StoreOptions, path: &Path) -> Result<Dumped, StoreError> {
    let dumped = read_dump(path, &mut |_, _, _| Ok(()))?;
    with_engine(options, Purpose::Make, LoadFrom(path))?;
    Ok(dumped)
}

/// Gives back what space a store that nobody has open does not need.
///
/// # Errors
/// As [`super::open`].
pub fn compact(options: &StoreOptions) -> Result<Compacted, StoreError> {
    let usage = || {
        broker::store::directory::disk_usage(&options.directory)
            .map_err(|error| StoreError::from(unavailable(&options.directory, &error)))
    };
    Directory::engine_of(&options.directory, FORMAT)?;
    let before_bytes = usage()?;
    match options.engine {
        #[cfg(feature = "sled")]
        EngineKind::Sled => {
            let directory = Directory::open(&options.directory, FORMAT, options.engine.name())?;
            broker::store::sled::compact_at(&directory, &options.for_engine())?;
        }
        _ => with_engine(options, Purpose::Use, Compact)?,
    }
    Ok(Compacted {
        before_bytes,
        after_bytes: usage()?,
    })
}

/// What is called for each row.
type Each<'a> = dyn FnMut(Table, &[u8], &[u8]) -> Result<(), StoreError> + 'a;

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
    fn on(self, engine: &impl KvEngine, watermark: &mut Watermark) -> Result<(), StoreError>;
}

struct DumpTo<'a> {
    path: &'a Path,
    dumped: &'a mut Option<Dumped>,
}

impl Work for DumpTo<'_> {
    fn on(self, engine: &impl KvEngine, _: &mut Watermark) -> Result<(), StoreError> {
        let io = |error: std::io::Error| bad_file(self.path, &error);
        // It holds every message and every password hash.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path)
            .map_err(io)?;
        let mut out = Output::new(BufWriter::new(file));
        out.write(TITLE).map_err(io)?;
        each_row(engine, tables::ALL, &mut |table, key, value| {
            out.row(table, key, value).map_err(io)
        })?;
        *self.dumped = Some(out.finish().map_err(io)?);
        Ok(())
    }
}

struct LoadFrom<'a>(&'a Path);

impl Work for LoadFrom<'_> {
    fn on(self, engine: &impl KvEngine, watermark: &mut Watermark) -> Result<(), StoreError> {
        let mut loader = Loader::new(engine);
        read_dump(self.0, &mut |table, key, value| {
            Ok(loader.add(table, key, value)?)
        })?;
        loader.finish()?;
        let commit = last_commit(engine, SCHEMA, None, false)?;
        watermark
            .write(commit)
            .map_err(|error| StoreError::Unavailable(format!("commit watermark: {error}")))
    }
}

struct Compact;

impl Work for Compact {
    fn on(self, engine: &impl KvEngine, _: &mut Watermark) -> Result<(), StoreError> {
        Ok(engine.compact()?)
    }
}

fn with_engine(
    options: &StoreOptions,
    purpose: Purpose,
    work: impl Work,
) -> Result<(), StoreError> {
    if options.engine == EngineKind::Memory {
        return Err(StoreError::Unavailable(
            "the engine memory keeps nothing".to_owned(),
        ));
    }
    if purpose == Purpose::Use {
        Directory::engine_of(&options.directory, FORMAT)?;
    }
    let directory = Directory::open(&options.directory, FORMAT, options.engine.name())?;
    if purpose == Purpose::Make && !directory.is_new() {
        return Err(StoreError::Exists);
    }
    match options.engine {
        #[cfg(feature = "fjall")]
        EngineKind::Fjall => {
            let engine =
                broker::store::fjall::FjallEngine::open(&directory, &options.for_engine())?;
            work_on(engine, directory, purpose, options, work)
        }
        #[cfg(feature = "sled")]
        EngineKind::Sled => {
            let engine = broker::store::sled::SledEngine::open(&directory, &options.for_engine())?;
            work_on(engine, directory, purpose, options, work)
        }
        other => Err(StoreError::Unavailable(format!(
            "this program was built without the engine {}",
            other.name()
        ))),
    }
}

fn work_on(
    engine: impl KvEngine,
    mut directory: Directory,
    purpose: Purpose,
    options: &StoreOptions,
    work: impl Work,
) -> Result<(), StoreError> {
    let mut watermark = directory.watermark()?;
    if purpose == Purpose::Use {
        last_commit(&engine, SCHEMA, watermark.known(), options.accept_loss)?;
    }
    work.on(&engine, &mut watermark)?;
    drop(engine);
    Ok(directory.set_ready(super::tables::ALL)?)
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
    fn bytes(&mut self, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.from.read_exact(buffer).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                StoreError::File("the dump is cut off".to_owned())
            } else {
                StoreError::File(format!("dump: {error}"))
            }
        })?;
        self.hash.update(&*buffer);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let mut bytes = [0; N];
        self.bytes(&mut bytes)?;
        Ok(bytes)
    }

    fn field(&mut self, buffer: &mut Vec<u8>, len: usize, max: usize) -> Result<(), StoreError> {
        if len > max {
            return Err(StoreError::File(format!(
                "the dump has a field of {len} bytes"
            )));
        }
        buffer.resize(len, 0);
        self.bytes(buffer)
    }
}

/// Reads a whole dump and checks its end.
fn read_dump(path: &Path, each: &mut Each<'_>) -> Result<Dumped, StoreError> {
    let file = File::open(path).map_err(|error| bad_file(path, &error))?;
    let mut input = Input {
        from: BufReader::new(file),
        hash: Sha256::new(),
    };
    if input.array()? != *TITLE {
        return Err(StoreError::File(format!(
            "{} is not a dump that this mqchat knows",
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
        let table = tables::from_byte(byte).ok_or_else(|| {
            StoreError::File(format!("the dump has rows of the unknown table {byte}"))
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
        return Err(StoreError::File(
            "the checksum of the dump is wrong".to_owned(),
        ));
    }
    Ok(Dumped { rows, checksum })
}

fn bad_file(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::File(format!("{}: {error}", path.display()))
}
