//! Disks that fail: power cuts, syncs that fail, and disks that are full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::server::{Launch, Server};

/// A disk on which only what was synced survives; see `powercut/powercut.c`.
pub(crate) struct Preload {
    library: PathBuf,
    base: TempDir,
    cuts: u32,
}

impl Preload {
    /// An empty disk.
    pub(crate) fn new() -> Self {
        let disk = Self {
            library: compile("powercut.c", &["-shared", "-fPIC"]),
            base: TempDir::with_prefix("mqchat-powercut-").unwrap(),
            cuts: 0,
        };
        fs::create_dir(disk.root()).unwrap();
        disk
    }

    /// Where programs see the disk. Another place after each cut.
    pub(crate) fn root(&self) -> PathBuf {
        self.base.path().join(format!("disk-{}", self.cuts))
    }

    /// The variables with which a program uses the disk.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 5] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("POWERCUT_ROOT", self.root()),
            ("POWERCUT_SHADOW", self.shadow()),
            ("POWERCUT_BROKEN", self.broken()),
            ("POWERCUT_LYING", self.lying()),
        ]
    }

    /// A server whose data are on the disk.
    pub(crate) fn launch(&self) -> Launch {
        self.environment()
            .into_iter()
            .fold(Launch::new(&self.root()), |launch, (name, value)| {
                launch.variable(name, value)
            })
    }

    /// From now on every sync fails.
    pub(crate) fn fail_syncs(&self) {
        fs::write(self.broken(), "").unwrap();
    }

    /// From now on a sync says success and does nothing.
    pub(crate) fn lie(&self) {
        fs::write(self.lying(), "").unwrap();
    }

    /// Syncs work again.
    pub(crate) fn repair(&self) {
        let _ = fs::remove_file(self.broken());
        let _ = fs::remove_file(self.lying());
    }

    /// The power fails under a server.
    pub(crate) fn cut(&mut self, mut server: Server) {
        server.kill();
        drop(server);
        self.cut_after_kill();
    }

    /// The power fails, when whoever used the disk has been killed.
    pub(crate) fn cut_after_kill(&mut self) {
        let tree = self.shadow().join("tree");
        let (old, old_shadow) = (self.root(), self.shadow());
        self.cuts += 1;
        fs::rename(tree, self.root()).unwrap();
        fs::remove_dir_all(old).unwrap();
        fs::remove_dir_all(old_shadow).unwrap();
    }

    fn shadow(&self) -> PathBuf {
        self.base.path().join(format!("shadow-{}", self.cuts))
    }

    fn broken(&self) -> PathBuf {
        self.base.path().join("broken")
    }

    fn lying(&self) -> PathBuf {
        self.base.path().join("lying")
    }
}

/// A tmpfs, which is full soon. Mounting needs root, or sudo without a password.
pub(crate) struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// An empty disk of so many MiB.
    pub(crate) fn new(mebibytes: u32) -> Self {
        let disk = Self {
            directory: TempDir::with_prefix("mqchat-small-").unwrap(),
        };
        let size = format!("size={mebibytes}m");
        as_root(&["mount", "-t", "tmpfs", "-o", &size, "tmpfs"], disk.path());
        as_root(&["chmod", "0777"], disk.path());
        disk
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes it larger, or smaller.
    pub(crate) fn resize(&self, mebibytes: u32) {
        let size = format!("remount,size={mebibytes}m");
        as_root(&["mount", "-o", &size], self.path());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        as_root(&["umount", "--lazy"], self.path());
    }
}

fn as_root(command: &[&str], path: &Path) {
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut words = if is_root { vec![] } else { vec!["sudo", "-n"] };
    words.extend(command);
    let status = Command::new(words[0]).args(&words[1..]).arg(path).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "cannot {}: the story of the full disk needs root, or sudo without a password",
        words.join(" ")
    );
}

/// Compiles a C source of `tests/powercut`, once per change of it.
pub(crate) fn compile(source: &str, options: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/powercut")
        .join(source);
    // Tests may be processes of their own, so each compiles for itself and the last one wins.
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let fresh = tempfile::NamedTempFile::new_in(directory).unwrap();
    let output = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-o"])
        .arg(fresh.path())
        .args(options)
        .arg(&source)
        .arg("-ldl")
        .output()
        .expect("cc (Debian package gcc)");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let target = directory.join(source.file_stem().unwrap());
    fs::rename(fresh.into_temp_path().keep().unwrap(), &target).unwrap();
    target
}
