//! Where the server keeps its data: a folder of the campaign, perhaps on a small disk of its own, perhaps under libraries that cut
//! the power, let syncs fail and move the clock.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use super::schedule::Fault;
use crate::error::BenchError;

/// What a program has to be told to work on it.
pub(crate) type Environment = Vec<(&'static str, PathBuf)>;

/// The disk of one campaign.
#[derive(Debug)]
pub(crate) struct Disk {
    base: PathBuf,
    power: Option<PathBuf>,
    clock: Option<PathBuf>,
    is_small: bool,
    cuts: u32,
}

impl Disk {
    /// Makes it, as far as these faults need it. Those that cannot be had are taken out, with the reason.
    pub(crate) fn make(
        folder: &Path,
        faults: &mut Vec<Fault>,
        told: &mut Vec<String>,
    ) -> Result<Self, BenchError> {
        let base = folder.join("disk");
        fs::create_dir_all(&base).map_err(|error| BenchError::at(&base, error))?;
        let mut disk = Self {
            base,
            power: None,
            clock: None,
            is_small: false,
            cuts: 0,
        };
        let mut without = |faults: &mut Vec<Fault>, gone: &[Fault], why: String| {
            faults.retain(|fault| !gone.contains(fault));
            told.push(why);
        };
        if faults.contains(&Fault::Full) {
            match disk.mount() {
                Ok(()) => disk.is_small = true,
                Err(error) => without(
                    faults,
                    &[Fault::Full],
                    format!("no full disk: a tmpfs cannot be mounted ({error})"),
                ),
            }
        }
        if faults.contains(&Fault::Power) || faults.contains(&Fault::Sync) {
            match compile(folder, "powercut", POWERCUT) {
                Ok(library) => disk.power = Some(library),
                Err(error) => without(
                    faults,
                    &[Fault::Power, Fault::Sync],
                    format!("no power cuts, no failing syncs: {error}"),
                ),
            }
        }
        if faults.contains(&Fault::Clock) {
            match compile(folder, "jump", JUMP) {
                Ok(library) => disk.clock = Some(library),
                Err(error) => {
                    let why = format!("no jumps of the clock: {error}");
                    without(faults, &[Fault::Clock], why);
                }
            }
        }
        disk.jump(0)?;
        let data = disk.data();
        fs::create_dir_all(&data).map_err(|error| BenchError::at(&data, error))?;
        Ok(disk)
    }

    /// Where the data are: another place after each power cut.
    pub(crate) fn data(&self) -> PathBuf {
        self.base.join(format!("data-{}", self.cuts))
    }

    /// The variables of a server that works on it.
    pub(crate) fn environment(&self) -> Environment {
        let libraries: Vec<_> = [&self.power, &self.clock].into_iter().flatten().collect();
        if libraries.is_empty() {
            return Vec::new();
        }
        let preload = libraries.iter().map(|path| path.display().to_string());
        let preload = preload.collect::<Vec<_>>().join(":");
        let mut environment = vec![
            ("LD_PRELOAD", preload.into()),
            ("JUMP_FILE", self.jump_file()),
        ];
        if self.power.is_some() {
            environment.push(("POWERCUT_ROOT", self.data()));
            environment.push(("POWERCUT_SHADOW", self.shadow()));
            environment.push(("POWERCUT_BROKEN", self.broken()));
        }
        environment
    }

    /// What is there when a server starts is durable: what the libraries knew of the last one does not count.
    pub(crate) fn before_start(&self) -> Result<(), BenchError> {
        let shadow = self.shadow();
        match fs::remove_dir_all(&shadow) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(BenchError::at(&shadow, error))
            }
            _ => Ok(()),
        }
    }

    /// The power has failed: whoever worked on it has been killed.
    pub(crate) fn cut(&mut self) -> Result<(), BenchError> {
        let (old, shadow) = (self.data(), self.shadow());
        let tree = shadow.join("tree");
        self.cuts += 1;
        let data = self.data();
        let cut = fs::rename(&tree, &data)
            .and_then(|()| fs::remove_dir_all(old))
            .and_then(|()| fs::remove_dir_all(shadow));
        cut.map_err(|error| BenchError::at(&tree, error))
    }

    /// From now on every sync fails, or none.
    pub(crate) fn fail_syncs(&self, fails: bool) -> Result<(), BenchError> {
        let path = self.broken();
        let done = if fails {
            fs::write(&path, "")
        } else {
            fs::remove_file(&path)
        };
        done.map_err(|error| BenchError::at(&path, error))
    }

    /// The clock of the server is so many seconds ahead.
    pub(crate) fn jump(&self, ahead: i64) -> Result<(), BenchError> {
        let path = self.jump_file();
        let mut options = fs::File::options();
        let opened = options.write(true).create(true).truncate(false).open(&path);
        let written =
            opened.and_then(|mut file| io::Write::write_all(&mut file, &ahead.to_ne_bytes()));
        written.map_err(|error| BenchError::at(&path, error))
    }

    /// There is no more room than this moment takes, or as much as there was.
    pub(crate) fn fill(&self, full: bool) -> Result<(), BenchError> {
        let size = if full {
            let free = rustix::fs::statvfs(&self.base);
            let free = free.map_err(|error| BenchError::at(&self.base, error.into()))?;
            let used = free.f_blocks.saturating_sub(free.f_bfree);
            format!("size={}", used * free.f_frsize + ROOM_LEFT)
        } else {
            SIZE.to_owned()
        };
        let done = mount_remount(&self.base, MountFlags::empty(), size);
        done.map_err(|error| BenchError::at(&self.base, error.into()))
    }

    fn mount(&self) -> io::Result<()> {
        let size = std::ffi::CString::new(SIZE)?;
        mount(
            "tmpfs",
            &self.base,
            "tmpfs",
            MountFlags::empty(),
            size.as_c_str(),
        )?;
        Ok(())
    }

    fn shadow(&self) -> PathBuf {
        self.base.join(format!("shadow-{}", self.cuts))
    }

    fn broken(&self) -> PathBuf {
        self.base.with_extension("broken")
    }

    fn jump_file(&self) -> PathBuf {
        self.base.with_extension("jump")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_small && unmount(&self.base, UnmountFlags::DETACH).is_err() {
            eprintln!("mqchat-bench: {} is still mounted", self.base.display());
        }
    }
}

/// Compiles a library for `LD_PRELOAD` into the folder of the campaign.
fn compile(folder: &Path, name: &str, source: &str) -> Result<PathBuf, String> {
    let (code, library) = (
        folder.join(format!("{name}.c")),
        folder.join(format!("{name}.so")),
    );
    fs::write(&code, source).map_err(|error| error.to_string())?;
    let output = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .args([&library, &code])
        .arg("-ldl")
        .output();
    let output = output.map_err(|error| format!("cc: {error}"))?;
    if output.status.success() {
        return Ok(library);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("cc: {}", errors.lines().next().unwrap_or_default()))
}

const POWERCUT: &str = include_str!("../../../server/tests/powercut/powercut.c");
const JUMP: &str = include_str!("disk/jump.c");
/// Of the small disk. Only what is written takes memory.
const SIZE: &str = "size=1g";
const ROOM_LEFT: u64 = 64 * 1024;
