//! The end of fjall's journal after a power cut.
//!
//! A disk may write the pages of an unfinished commit in any order. fjall drops a commit whose end is missing, but refuses
//! the whole journal where the end is there and a page in the middle is not: the checksum is wrong then, and it cannot
//! know that nothing was acknowledged. The commit watermark can tell, so such an end is cut off before fjall looks. Damage
//! with other commits behind it is left to fjall, which refuses.
//!
//! A commit in the journal: `1` items[4] number[8]; per item `2` type[1] compression[1] table[8] key length[2] value
//! length[4] stored length[4] key value, or `4` table[8]; `3` xxh3 of the items[8] `FJL` 3. All numbers are little-endian.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::store::directory::unavailable;
use crate::store::kv::EngineError;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// The last bytes of each commit.
const TRAILER: [u8; 4] = *b"FJL\x03";

/// Cuts the journal of a closed database off before its last commit, if that one is torn.
///
/// # Errors
/// [`EngineError::Io`] if the journal cannot be read or cut.
pub(super) fn cut_torn_end(database: &Path) -> Result<(), EngineError> {
    let Some(path) = newest(database).map_err(|error| unavailable(database, &error))? else {
        return Ok(());
    };
    let io = |error: io::Error| unavailable(&path, &error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(io)?;
    let Some(at) = torn_end(&mut file).map_err(io)? else {
        return Ok(());
    };
    tracing::warn!(journal = %path.display(), at, "the last commit is torn and was cut off: a power cut, unless acknowledged data is missing");
    file.set_len(at).map_err(io)?;
    file.sync_all().map_err(io)
}

/// The journal that was written last.
fn newest(database: &Path) -> io::Result<Option<PathBuf>> {
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

/// Where the last commit begins, if it is torn in a way that fjall refuses.
fn torn_end(file: &mut File) -> io::Result<Option<u64>> {
    let mut reader = BufReader::new(&mut *file);
    let mut start = 0;
    let trailers = loop {
        match read_commit(&mut reader) {
            Ok(Found::Whole) => start = reader.stream_position()?,
            Ok(Found::Unfinished) => return Ok(None),
            Ok(Found::WrongSum) => break 0,
            Ok(Found::WrongItems) => {
                reader.seek(SeekFrom::Start(start))?;
                break 1;
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    };
    let is_last = count_trailers(reader, trailers + 1)? <= trailers;
    Ok(is_last.then_some(start))
}

/// What stands where a commit should.
enum Found {
    Whole,
    /// No commit, or one that breaks off: fjall drops it.
    Unfinished,
    /// The end of the commit was read, but the items are not those that were written.
    WrongSum,
    /// They make no sense.
    WrongItems,
}

fn read_commit(reader: &mut impl Read) -> io::Result<Found> {
    if byte(reader)? != START {
        return Ok(Found::Unfinished);
    }
    let mut left = u32::from_le_bytes(array(reader)?);
    let _number: [u8; 8] = array(reader)?;
    let mut sum = Xxh3::new();
    loop {
        let tag = byte(reader)?;
        match tag {
            END => {
                let expected = u64::from_le_bytes(array(reader)?);
                return Ok(if array(reader)? != TRAILER {
                    Found::Unfinished
                } else if left > 0 {
                    Found::WrongItems
                } else if sum.digest() == expected {
                    Found::Whole
                } else {
                    Found::WrongSum
                });
            }
            ITEM | CLEAR if left == 0 => return Ok(Found::WrongItems),
            ITEM => {
                let head: [u8; 20] = array(reader)?;
                let [
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    k0,
                    k1,
                    v0,
                    v1,
                    v2,
                    v3,
                    s0,
                    s1,
                    s2,
                    s3,
                ] = head;
                let value = u32::from_le_bytes([v0, v1, v2, v3]);
                if value != u32::from_le_bytes([s0, s1, s2, s3]) {
                    return Ok(Found::WrongItems); // we do not compress
                }
                sum.update(&[tag]);
                sum.update(&head);
                let bytes = u64::from(u16::from_le_bytes([k0, k1])) + u64::from(value);
                hash(reader, bytes, &mut sum)?;
            }
            CLEAR => {
                sum.update(&[tag]);
                hash(reader, 8, &mut sum)?;
            }
            _ => return Ok(Found::Unfinished),
        }
        left -= 1;
    }
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

/// How many trailers of commits follow; counts to `enough`. What a client wrote may look like one: then there is one too
/// many, and nothing is cut.
fn count_trailers(reader: impl BufRead, enough: u32) -> io::Result<u32> {
    let (mut found, mut last) = (0, [0; 4]);
    for byte in reader.bytes() {
        let [_, b, c, d] = last;
        last = [b, c, d, byte?];
        found += u32::from(last == TRAILER);
        if found == enough {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::OpenOptions as Options;
    use crate::store::directory::{Directory, Format};
    use crate::store::fjall::FjallEngine;
    use crate::store::kv::{KvBatch, KvEngine as _, Table};

    const ONE: Table = Table::new(1, "one");
    const TWO: Table = Table::new(2, "two");
    const PAGE: usize = 4_096;

    fn open(path: &Path) -> Result<FjallEngine, EngineError> {
        let format = Format {
            marker: "MARKER",
            title: "test 1",
            watermark: *b"testtest",
        };
        let options = Options {
            tables: &[ONE, TWO],
            memory_bytes: 1 << 20,
            accept_loss: false,
        };
        let mut directory = Directory::open(path, format, "fjall")?;
        let engine = FjallEngine::open(&directory, &options)?;
        directory.set_ready(options.tables)?;
        Ok(engine)
    }

    fn commit(engine: &FjallEngine, number: u8, value: &[u8]) {
        let mut batch = KvBatch::default();
        batch.put(ONE, &[number], value);
        batch.put(TWO, &[number], &[number; 300]);
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

    /// A journal with three commits, of which the second and the last have some pages: where they begin, and its bytes.
    fn three_commits(path: &Path) -> (Vec<usize>, PathBuf, Vec<u8>) {
        drop(open(path).unwrap());
        let engine = open(path).unwrap(); // a journal that exists is not made longer before it is written
        let journal = newest(&path.join("fjall")).unwrap().unwrap();
        let len = || usize::try_from(journal.metadata().unwrap().len()).unwrap();
        let mut starts = Vec::new();
        for (number, bytes) in [(1, 10), (2, 5 * PAGE), (3, 5 * PAGE)] {
            starts.push(len());
            commit(&engine, number, &vec![number; bytes]);
        }
        drop(engine);
        let bytes = std::fs::read(&journal).unwrap();
        (starts, journal, bytes)
    }

    #[test]
    fn a_hole_in_the_last_commit_loses_that_commit_only() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("store");
        let (starts, journal, whole) = three_commits(&path);
        let last = starts[2];
        for at in (last..whole.len()).step_by(PAGE / 2) {
            let mut torn = whole.clone();
            let to = (at + PAGE).min(whole.len());
            torn[at..to].fill(0);
            std::fs::write(&journal, &torn).unwrap();
            let engine = open(&path).unwrap_or_else(|error| panic!("hole at {at}: {error}"));
            assert_eq!(commits(&engine), [1, 2], "hole at {at}");
            commit(&engine, 4, b"later");
            drop(engine);
            assert_eq!(commits(&open(&path).unwrap()), [1, 2, 4], "hole at {at}");
        }
    }

    #[test]
    fn a_hole_before_another_commit_is_damage() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("store");
        let (starts, journal, mut bytes) = three_commits(&path);
        let middle = starts[1] + 2 * PAGE;
        bytes[middle..middle + 100].fill(0);
        std::fs::write(&journal, &bytes).unwrap();
        let error = open(&path).err().unwrap();
        assert!(matches!(error, EngineError::Corrupt(_)), "{error}");
        assert_eq!(std::fs::read(&journal).unwrap(), bytes, "nothing was cut");
    }
}
