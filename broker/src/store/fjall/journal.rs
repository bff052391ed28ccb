//! The end of fjall's journal after a power cut or a kill.
//!
//! A disk may write the pages of an unfinished commit in any order. fjall drops whatever follows a commit that makes no
//! sense, silently, and refuses the whole journal where only a checksum is wrong: it cannot know what was acknowledged. So
//! the newest journal is read before fjall looks:
//!
//! 1. A torn commit is cut off, with whatever follows: one that the file ends before, or in which a sector was never written.
//!    On a disk that keeps its word no sync covered it, nor the commits behind it, however whole they look. The watermark
//!    has the last word.
//! 2. Anything else is damage, of which nobody knows whether it was acknowledged. It is refused before anything is changed;
//!    where loss is accepted, the journal is cut before the first commit that is not whole.
//!
//! What is cut off is kept beside the journal. Journals before the newest one were synced and are left to fjall.
//!
//! A commit in the journal: `1` items[4] number[8]; per item `2` type[1] compression[1] table[8] key length[2] value
//! length[4] stored length[4] key value, or `4` table[8]; `3` xxh3 of the items[8] `FJL` 3. All numbers are little-endian.
//! Behind the last commit there may be zeros: fjall makes the file longer before it writes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::store::directory::{Directory, sync_directory, unavailable};
use crate::store::kv::EngineError;
use crate::store::recover::{COMMIT_KEY, CommitRow};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// The last bytes of each commit.
const TRAILER: [u8; 4] = *b"FJL\x03";
/// What a disk writes at once, or not at all: some promise no more than this.
const SECTOR: usize = 512;
const ZEROS: [u8; SECTOR] = [0; SECTOR];
/// Of the key of a [`CommitRow`], and of its value.
const COMMIT_KEY_BYTES: u16 = 6;
const COMMIT_VALUE_BYTES: u32 = 17;

/// Cuts the newest journal of a closed database off before the first commit that is not whole, if that one is torn or loss
/// is accepted.
///
/// # Errors
/// [`EngineError::Corrupt`] if it is damaged, [`EngineError::Behind`] if acknowledged data would be missing: then nothing
/// was changed. [`EngineError::Io`] if it cannot be read or cut.
pub(super) fn cut_torn_end(directory: &Directory, accept_loss: bool) -> Result<(), EngineError> {
    let database = directory.engine_path();
    let Some(path) = newest(&database).map_err(|error| unavailable(&database, &error))? else {
        return Ok(());
    };
    let io = |error: io::Error| unavailable(&path, &error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(io)?;
    let Some(damage) = find_damage(&mut file).map_err(io)? else {
        return Ok(());
    };
    let was_promised = accept_loss || !damage.check(&path, directory)?;
    let kept = match keep(&mut file, &damage, &path) {
        Ok(kept) => Some(kept),
        // A full disk must not stop a start for bytes that were promised to nobody.
        Err(error) if !was_promised => {
            tracing::warn!(%error, "no copy could be made of what is cut off the journal");
            None
        }
        Err(error) => return Err(error),
    };
    tracing::warn!(
        journal = %path.display(),
        commit = damage.whole + 1,
        at = damage.start,
        bytes = damage.end - damage.start,
        kept = ?kept.unwrap_or_default(),
        "{}",
        if damage.is_torn {
            "an unfinished commit, and what followed it, was cut off"
        } else {
            "the journal is damaged and was cut off, as accepted"
        }
    );
    file.set_len(damage.start).map_err(io)?;
    file.sync_all().map_err(io)
}

/// The first commit that is not whole, and what is behind it.
struct Damage {
    /// Commits before it.
    whole: u64,
    /// The highest number in a commit row before it.
    number: Option<u64>,
    start: u64,
    /// Behind it there are only zeros.
    end: u64,
    /// It was never written completely, so no sync covered it.
    is_torn: bool,
}

impl Damage {
    /// Whether it may be cut off without asking. True: the watermark says that none of it was acknowledged; otherwise
    /// nobody knows yet.
    fn check(&self, path: &Path, directory: &Directory) -> Result<bool, EngineError> {
        if !self.is_torn {
            return Err(EngineError::Corrupt(format!(
                "{}: commit {} of this journal, at byte {} of {}, is damaged, and not as an unfinished one would be: acknowledged data may be lost (`serve --accept-loss` cuts here)",
                path.display(),
                self.whole + 1,
                self.start,
                self.end,
            )));
        }
        match (self.number, directory.watermark()?.known()) {
            (Some(found), Some(known)) if found < known => {
                Err(EngineError::Behind { found, known })
            }
            (found, known) => Ok(found.is_some() && known.is_some()),
        }
    }
}

/// Copies what will be cut off to a file beside the journal.
fn keep(file: &mut File, damage: &Damage, journal: &Path) -> Result<PathBuf, EngineError> {
    let beside = |n: u32| journal.with_extension(format!("jnl.torn.{n}"));
    let mut number = 1;
    while beside(number).exists() {
        number += 1;
    }
    let path = beside(number);
    let mut copy = || {
        file.seek(SeekFrom::Start(damage.start))?;
        let mut torn = File::create_new(&path)?;
        let copied = io::copy(&mut file.take(damage.end - damage.start), &mut torn);
        copied.and_then(|_| torn.sync_all()).inspect_err(|_| {
            let _half = std::fs::remove_file(&path);
        })
    };
    copy().map_err(|error| unavailable(&path, &error))?;
    journal.parent().map_or(Ok(()), sync_directory)?;
    Ok(path)
}

/// Empties the journals of a closed database whose tables are all written out, and removes what was cut off earlier ones.
/// The newest stays as an empty file: without any, fjall would count its commits from the beginning again.
///
/// # Errors
/// [`EngineError::Io`] if the disk refuses.
pub(super) fn empty(database: &Path) -> Result<(), EngineError> {
    let io = |error: io::Error| unavailable(database, &error);
    let last = newest(database).map_err(io)?;
    for file in std::fs::read_dir(database).map_err(io)? {
        let path = file.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_journal = name.ends_with(".jnl") || name.contains(".jnl.torn.");
        if is_journal && Some(&path) != last.as_ref() {
            std::fs::remove_file(&path).map_err(io)?;
        }
    }
    // The older ones first: their commits must not come back without those behind them.
    sync_directory(database)?;
    let Some(last) = last else { return Ok(()) };
    let io = |error: io::Error| unavailable(&last, &error);
    let file = OpenOptions::new().write(true).open(&last).map_err(io)?;
    file.set_len(0).map_err(io)?;
    file.sync_all().map_err(io)
}

/// The journal that was written last.
pub(super) fn newest(database: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for file in std::fs::read_dir(database)? {
        let path = file?.path();
        let number = path
            .extension()
            .is_some_and(|extension| extension == "jnl")
            .then(|| path.file_stem()?.to_str()?.parse::<u64>().ok())
            .flatten();
        if let Some(number) = number {
            newest = newest.max(Some((number, path)));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

fn find_damage(file: &mut File) -> io::Result<Option<Damage>> {
    let mut reader = BufReader::new(file);
    let (mut start, mut whole, mut number) = (0, 0, None);
    let found = loop {
        match read_commit(&mut reader, &mut number) {
            Ok(Found::Whole) => {
                start = reader.stream_position()?;
                whole += 1;
            }
            Ok(other) => break other,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break Found::Nonsense,
            Err(error) => return Err(error),
        }
    };
    let read_to = reader.stream_position()?;
    reader.seek(SeekFrom::Start(start))?;
    let tail = Tail::read(reader, start, read_to)?;
    if tail.end == start {
        return Ok(None);
    }
    // What breaks off ends nowhere. What a client wrote and looks like a trailer was read as the value it is, unless it
    // breaks off right there.
    let breaks_off = !tail.ends_whole && !tail.has_trailer_behind;
    let is_torn = tail.has_hole || (breaks_off && found != Found::WrongEnd);
    Ok(Some(Damage {
        whole,
        number,
        start,
        end: tail.end,
        is_torn,
    }))
}

/// What stands where a commit should.
#[derive(PartialEq)]
enum Found {
    Whole,
    /// Its end was read, but is not that of these items.
    WrongEnd,
    /// No commit, or one that breaks off.
    Nonsense,
}

/// `number` is raised to that of the commit row, if there is one and the commit is whole.
fn read_commit(reader: &mut impl Read, number: &mut Option<u64>) -> io::Result<Found> {
    if byte(reader)? != START {
        return Ok(Found::Nonsense);
    }
    let mut left = u32::from_le_bytes(array(reader)?);
    let _number: [u8; 8] = array(reader)?;
    let (mut sum, mut row) = (Xxh3::new(), None);
    loop {
        let tag = byte(reader)?;
        match tag {
            END if left == 0 => {
                let expected = u64::from_le_bytes(array(reader)?);
                return Ok(match array(reader)? {
                    TRAILER if sum.digest() == expected => {
                        *number = row.max(*number);
                        Found::Whole
                    }
                    [.., 0] => Found::Nonsense,
                    _ => Found::WrongEnd,
                });
            }
            ITEM if left > 0 => {
                sum.update(&[tag]);
                let _type_and_compression: [u8; 2] = read_summed(reader, &mut sum)?;
                let _table: [u8; 8] = read_summed(reader, &mut sum)?;
                let key = u16::from_le_bytes(read_summed(reader, &mut sum)?);
                let value = u32::from_le_bytes(read_summed(reader, &mut sum)?);
                let stored = u32::from_le_bytes(read_summed(reader, &mut sum)?);
                if stored != value {
                    return Ok(Found::Nonsense); // we do not compress
                }
                if (key, value) == (COMMIT_KEY_BYTES, COMMIT_VALUE_BYTES) {
                    let key: [u8; COMMIT_KEY_BYTES as usize] = read_summed(reader, &mut sum)?;
                    let value: [u8; COMMIT_VALUE_BYTES as usize] = read_summed(reader, &mut sum)?;
                    // A row of another table may have such a key: its number cannot lower that of the others.
                    if key == COMMIT_KEY {
                        row = row.max(CommitRow::read(&value).ok().map(|row| row.number));
                    }
                } else {
                    hash(reader, u64::from(key) + u64::from(value), &mut sum)?;
                }
            }
            CLEAR if left > 0 => {
                sum.update(&[tag]);
                let _table: [u8; 8] = read_summed(reader, &mut sum)?;
            }
            _ => return Ok(Found::Nonsense),
        }
        left -= 1;
    }
}

fn read_summed<const N: usize>(reader: &mut impl Read, sum: &mut Xxh3) -> io::Result<[u8; N]> {
    let bytes = array(reader)?;
    sum.update(&bytes);
    Ok(bytes)
}

fn byte(reader: &mut impl Read) -> io::Result<u8> {
    array::<1>(reader).map(|[byte]| byte)
}

fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn hash(reader: &mut impl Read, mut bytes: u64, sum: &mut Xxh3) -> io::Result<()> {
    let mut buffer = [0; 4_096];
    while bytes > 0 {
        let some = usize::try_from(bytes).map_or(buffer.len(), |bytes| bytes.min(buffer.len()));
        let Some(part) = buffer.get_mut(..some) else {
            break;
        };
        reader.read_exact(part)?;
        sum.update(part);
        bytes -= some as u64;
    }
    Ok(())
}

/// What a journal holds from a commit on that is not whole.
#[derive(Default)]
struct Tail {
    /// Behind the last byte that is not zero.
    end: u64,
    /// It ends with the end of a commit.
    ends_whole: bool,
    /// A sector was never written: it is zero as far as it is part of the tail, begins before the place where reading the
    /// commit stopped, and something stands behind it.
    has_hole: bool,
    /// Another commit may have ended behind where reading this one stopped.
    has_trailer_behind: bool,
}

impl Tail {
    fn read(mut reader: impl Read, start: u64, read_to: u64) -> io::Result<Self> {
        let mut tail = Self {
            end: start,
            ..Self::default()
        };
        let (mut at, mut last, mut has_zeros) = (start, [0; 4], false);
        let mut sector = Vec::new();
        loop {
            sector.clear();
            let bytes = SECTOR as u64 - at % SECTOR as u64;
            (&mut reader).take(bytes).read_to_end(&mut sector)?;
            if sector.is_empty() {
                return Ok(tail);
            }
            if ZEROS.starts_with(&sector) {
                has_zeros |= at < read_to;
                at += sector.len() as u64;
                last = [0; 4];
                continue;
            }
            tail.has_hole |= has_zeros;
            for byte in &sector {
                at += 1;
                let [_, b, c, d] = last;
                last = [b, c, d, *byte];
                if *byte != 0 {
                    tail.end = at;
                    tail.ends_whole = last == TRAILER;
                }
                tail.has_trailer_behind |= last == TRAILER && at > read_to;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::OpenOptions as Options;
    use crate::store::directory::Format;
    use crate::store::fjall::FjallEngine;
    use crate::store::kv::{KvBatch, KvEngine as _, Table};

    const PAGE: usize = 4_096;
    const ONE: Table = Table::new(1, "one");
    const TWO: Table = Table::new(2, "two");

    fn directory(path: &Path) -> Directory {
        let format = Format {
            marker: "MARKER",
            title: "test 1",
            watermark: *b"testtest",
        };
        Directory::open(path, format, "fjall").unwrap()
    }

    fn try_open(path: &Path, accept_loss: bool) -> Result<FjallEngine, EngineError> {
        let options = Options {
            tables: &[ONE, TWO],
            memory_bytes: 1 << 20,
            accept_loss,
        };
        let mut directory = directory(path);
        let engine = FjallEngine::open(&directory, &options)?;
        directory.set_ready(options.tables)?;
        Ok(engine)
    }

    fn open(path: &Path) -> FjallEngine {
        try_open(path, false).unwrap()
    }

    fn commit(engine: &FjallEngine, number: u8, value: &[u8]) {
        let mut batch = KvBatch::default();
        batch.put(ONE, &[number], value);
        batch.put(TWO, &[number], &[number; 300]);
        let row = CommitRow {
            number: number.into(),
            clock_ms: 0,
        };
        let mut rows = KvBatch::default();
        row.put(&mut rows);
        for (_, key, value) in rows.lines() {
            batch.put(TWO, key, value.unwrap());
        }
        engine.commit_durable(&batch).unwrap();
    }

    /// Numbers of the commits whose rows are there, in both tables.
    fn commits(engine: &FjallEngine) -> Vec<u8> {
        let is_there = |table, number: u8| engine.get(table, &[number]).unwrap().is_some();
        let found = (0..10).filter(|number| is_there(ONE, *number));
        found
            .inspect(|number| assert!(is_there(TWO, *number), "half of {number}"))
            .collect()
    }

    /// A store with three commits in its journal, of which the second and the last have some pages.
    struct World {
        _home: tempfile::TempDir,
        path: PathBuf,
        journal: PathBuf,
        /// Where the commits begin.
        starts: Vec<usize>,
        bytes: Vec<u8>,
    }

    impl World {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("store");
            drop(open(&path));
            let engine = open(&path); // a journal that exists is not made longer before it is written
            let journal = newest(&path.join("fjall")).unwrap().unwrap();
            let len = || usize::try_from(journal.metadata().unwrap().len()).unwrap();
            let mut starts = Vec::new();
            for (number, bytes) in [(1, 10), (2, 5 * PAGE), (3, 5 * PAGE)] {
                starts.push(len());
                commit(&engine, number, &vec![number; bytes]);
            }
            drop(engine);
            Self {
                bytes: std::fs::read(&journal).unwrap(),
                _home: home,
                path,
                journal,
                starts,
            }
        }

        fn write(&self, bytes: &[u8]) {
            std::fs::write(&self.journal, bytes).unwrap();
        }

        /// The journal with a page never written, the first whole one at or behind a byte.
        fn with_hole(&self, at: usize) -> Vec<u8> {
            let at = at.next_multiple_of(PAGE);
            self.without(at..at + PAGE)
        }

        fn without(&self, bytes: std::ops::Range<usize>) -> Vec<u8> {
            let mut torn = self.bytes.clone();
            torn[bytes].fill(0);
            torn
        }

        /// What was cut off the last time.
        fn torn(&self) -> Option<PathBuf> {
            let files = (1..).map(|n| self.journal.with_extension(format!("jnl.torn.{n}")));
            files.take_while(|path| path.exists()).last()
        }

        fn assert_refused(&self, bytes: &[u8]) {
            self.write(bytes);
            let error = try_open(&self.path, false).err().unwrap().to_string();
            let journal = self.journal.display().to_string();
            assert!(error.starts_with(&journal), "{error}");
            assert!(error.contains("--accept-loss` cuts here"), "{error}");
            assert_eq!(std::fs::read(&self.journal).unwrap(), bytes);
            assert_eq!(self.torn(), None);
        }

        /// Opens with the journal cut off before a commit, and the rest beside it.
        fn assert_cut(&self, bytes: &[u8], accept_loss: bool, commit_index: usize) {
            let start = self.starts[commit_index];
            let expected = [1, 2, 3];
            self.write(bytes);
            let engine = try_open(&self.path, accept_loss).unwrap();
            assert_eq!(commits(&engine), expected[..commit_index]);
            let mut kept = std::fs::read(self.torn().unwrap()).unwrap();
            kept.resize(bytes.len() - start, 0);
            assert_eq!(kept, bytes[start..]);
            commit(&engine, 4, b"later");
            drop(engine);
            assert_eq!(commits(&open(&self.path)).last(), Some(&4));
        }
    }

    #[test]
    fn an_unwritten_page_in_the_last_commit_loses_that_commit_only() {
        let world = World::new();
        let last = world.starts[2];
        let pages = (last / PAGE * PAGE..world.bytes.len()).step_by(PAGE);
        for page in pages {
            let mut torn = world.bytes.clone();
            let to = (page + PAGE).min(torn.len());
            torn[page.max(last)..to].fill(0);
            world.assert_cut(&torn, false, 2);
        }
    }

    #[test]
    fn a_last_commit_that_breaks_off_loses_that_commit_only() {
        let world = World::new();
        let (last, end) = (world.starts[2], world.bytes.len());
        for at in (last + 1..end).step_by(1_000).chain(end - 20..end) {
            world.assert_cut(&world.bytes[..at], false, 2);
            let mut longer = world.bytes[..at].to_vec();
            longer.resize(end + 10 * PAGE, 0);
            world.assert_cut(&longer, false, 2);
        }
    }

    #[test]
    fn a_flipped_bit_in_the_last_commit_is_refused_and_changes_nothing() {
        let world = World::new();
        let (last, end) = (world.starts[2], world.bytes.len());
        let places = (last..last + 50).chain([last + 2 * PAGE]);
        for at in places.chain(end - 20..end) {
            for bit in 0..8 {
                // The number of a commit is not in its checksum.
                if (last + 5..last + 13).contains(&at) {
                    continue;
                }
                let mut flipped = world.bytes.clone();
                flipped[at] ^= 1 << bit;
                world.assert_refused(&flipped);
            }
        }
        let mut flipped = world.bytes.clone();
        flipped[last + 2 * PAGE] ^= 1;
        world.assert_cut(&flipped, true, 2);
    }

    #[test]
    fn an_unwritten_page_loses_the_commits_behind_it_too_for_no_sync_covered_them() {
        let world = World::new();
        for page in (world.starts[1]..world.starts[2] - PAGE).step_by(PAGE) {
            world.assert_cut(&world.with_hole(page), false, 1);
        }
        let mut watermark = directory(&world.path).watermark().unwrap();
        watermark.write(2).unwrap();
        let torn = world.with_hole(world.starts[1] + 100);
        world.write(&torn);
        let error = try_open(&world.path, false).err().unwrap();
        assert_eq!(error, EngineError::Behind { found: 1, known: 2 });
        assert_eq!(std::fs::read(&world.journal).unwrap(), torn);
    }

    #[test]
    fn a_page_that_was_written_in_part_is_torn_too() {
        let world = World::new();
        let (second, last) = (world.starts[1], world.starts[2]);
        let first_page = second..second.next_multiple_of(PAGE);
        world.assert_cut(&world.without(first_page), false, 1);
        for sector in (last.next_multiple_of(SECTOR)..world.bytes.len() - SECTOR).step_by(SECTOR) {
            world.assert_cut(&world.without(sector..sector + SECTOR), false, 2);
        }
    }

    #[test]
    fn damage_before_the_last_commit_is_refused_even_where_that_one_is_torn() {
        let world = World::new();
        let mut both = world.with_hole(world.starts[2] + 100);
        both[world.starts[1] + 2 * PAGE] ^= 1;
        world.assert_refused(&both);
        world.assert_cut(&both, true, 1);
    }

    #[test]
    fn what_was_cut_off_before_is_kept_too() {
        let world = World::new();
        let torn = world.with_hole(world.starts[2] + 100);
        world.assert_cut(&torn, false, 2);
        let first = world.torn();
        world.assert_cut(&torn, false, 2);
        assert_ne!(world.torn(), first);
    }

    #[test]
    fn a_torn_commit_that_was_acknowledged_is_not_cut() {
        let world = World::new();
        let torn = world.with_hole(world.starts[2] + 100);
        world.write(&torn);
        let mut watermark = directory(&world.path).watermark().unwrap();
        watermark.write(3).unwrap();
        let error = try_open(&world.path, false).err().unwrap();
        assert_eq!(error, EngineError::Behind { found: 2, known: 3 });
        assert_eq!(std::fs::read(&world.journal).unwrap(), torn);
        watermark.write(2).unwrap();
        world.assert_cut(&torn, false, 2);
    }
}
