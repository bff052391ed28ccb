//! The commit watermark: a side file that remembers how far the engine has been, because no engine can tell a cut-off log
//! from one that was never longer. Two slots, written in turn, so that a torn write leaves the other one.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::kv::EngineError;

/// Where the second slot begins.
const SLOT_STRIDE: u64 = 4096;
const FILE_BYTES: usize = 8192;
const SLOT_BYTES: usize = 48;

/// The open file.
#[derive(Debug)]
pub struct Watermark {
    file: File,
    magic: [u8; 8],
    round: u64,
    known: Option<u64>,
}

impl Watermark {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] if the file is there but neither slot makes sense.
    pub fn open(path: &Path, magic: [u8; 8]) -> Result<Self, EngineError> {
        let io = |error: std::io::Error| {
            EngineError::Io(format!("watermark file {}: {error}", path.display()))
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            // Written, not only made longer: its blocks shall be there when the disk is full.
            file.write_all(&[0; FILE_BYTES]).map_err(io)?;
            file.sync_all().map_err(io)?;
            return Ok(Self {
                file,
                magic,
                round: 0,
                known: None,
            });
        }
        let mut bytes = Vec::new();
        (&mut file)
            .take(FILE_BYTES as u64)
            .read_to_end(&mut bytes)
            .map_err(io)?;
        let blank = bytes.iter().all(|byte| *byte == 0);
        let (low, high) = bytes.split_at(bytes.len().min(FILE_BYTES / 2));
        let newest = [low, high]
            .into_iter()
            .filter_map(|slot| read_slot(magic, slot))
            .max_by_key(|(round, _)| *round);
        match newest {
            Some((round, known)) => Ok(Self {
                file,
                magic,
                round,
                known: Some(known),
            }),
            None if blank => Ok(Self {
                file,
                magic,
                round: 0,
                known: None,
            }),
            None => Err(EngineError::Corrupt(format!(
                "no slot of the watermark file {} makes sense (remove it if the engine's data is known to be complete)",
                path.display()
            ))),
        }
    }

    /// The last commit known to be durable; `None` in a new file.
    pub const fn known(&self) -> Option<u64> {
        self.known
    }

    /// Remembers a durable commit, durably.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&mut self, commit: u64) -> std::io::Result<()> {
        if self.known == Some(commit) {
            return Ok(());
        }
        let round = self.round + 1;
        self.file.seek(SeekFrom::Start((round % 2) * SLOT_STRIDE))?;
        self.file
            .write_all(&write_slot(self.magic, round, commit))?;
        self.file.sync_data()?;
        self.round = round;
        self.known = Some(commit);
        Ok(())
    }
}

fn write_slot(magic: [u8; 8], round: u64, commit: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    let parts = [magic, round.to_be_bytes(), commit.to_be_bytes(), [0; 8]];
    let fields = parts.as_flattened();
    let sum = checksum(fields);
    let bytes = fields.iter().chain(&sum).copied();
    slot.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    slot
}

/// Round and commit of a slot that makes sense.
fn read_slot(magic: [u8; 8], bytes: &[u8]) -> Option<(u64, u64)> {
    let (fields, rest) = bytes.split_first_chunk::<32>()?;
    let (sum, _) = rest.split_first_chunk::<16>()?;
    if checksum(fields).get(..16)? != sum {
        return None;
    }
    let rest = fields.strip_prefix(&magic)?;
    let (round, rest) = rest.split_first_chunk()?;
    let (commit, _) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*round), u64::from_be_bytes(*commit)))
}

/// Of the fields with their length before them. A slot keeps the first 16 bytes.
fn checksum(fields: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update((fields.len() as u64).to_be_bytes())
        .chain_update(fields)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_slot_leaves_the_other_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watermark");
        let mut watermark = Watermark::open(&path, *b"a test 1").unwrap();
        assert_eq!(watermark.known(), None);
        watermark.write(7).unwrap();
        watermark.write(9).unwrap();
        assert_eq!(
            Watermark::open(&path, *b"a test 1").unwrap().known(),
            Some(9)
        );

        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1; // round 2 stands in slot 0
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(
            Watermark::open(&path, *b"a test 1").unwrap().known(),
            Some(7)
        );

        bytes[4096 + 20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(
            Watermark::open(&path, *b"a test 1"),
            Err(EngineError::Corrupt(_))
        ));
    }
}
